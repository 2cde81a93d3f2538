//! Credentials files as NATS clients read them (ADR-14): each part in lines of its own, between a line
//! that begins it and one that ends it.

/// What a part of a credentials file holds: `NATS USER JWT`, `USER NKEY SEED`. `None` if it is not
/// there or holds nothing.
///
/// A part ends with its line: base64url has dashes too, and a token may hold as many of them in a row
/// as the line that ends it begins with.
pub fn part<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let begin = format!("-----BEGIN {name}-----");
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| *line == begin)?;
    let held = lines.find(|line| !line.is_empty())?;
    (!held.starts_with("-----")).then_some(held)
}

/// A credentials file's text: a token and the seed of its key.
pub fn render(jwt: &str, seed: &str) -> String {
    format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_may_hold_dashes_in_a_row() {
        for token in ["a.b.c", "eyJ0.eyJq-----x.Zm---9v_----", "e.f.---"] {
            let text = render(token, "SUA");
            assert_eq!(part(&text, "NATS USER JWT"), Some(token));
            assert_eq!(part(&text, "USER NKEY SEED"), Some("SUA"));
            let of_other_tools = text.replace('\n', "\r\n").replace("SUA", "  SUA ");
            assert_eq!(part(&of_other_tools, "NATS USER JWT"), Some(token));
            assert_eq!(part(&of_other_tools, "USER NKEY SEED"), Some("SUA"));
        }
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        assert_eq!(part("nothing", "NATS USER JWT"), None);
        assert_eq!(part(&render("", "SUA"), "NATS USER JWT"), None);
        assert_eq!(
            part("-----BEGIN NATS USER JWT-----\n", "NATS USER JWT"),
            None
        );
    }
}
