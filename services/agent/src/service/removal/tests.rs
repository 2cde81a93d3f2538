use std::fs;

use conductor_protocol::ids::{Namespace, Position};

use super::*;

fn dropped(name: &str) -> WorkspaceDropped {
    WorkspaceDropped {
        namespace: Namespace::default(),
        name: name.to_owned(),
        incarnation: 1,
        control: Position::new(1, 0),
    }
}

#[tokio::test]
async fn a_workspace_goes_when_nobody_uses_it() {
    let kept = tempfile::tempdir().unwrap();
    let kept = kept.path();
    let used = Named::take(kept, &Namespace::default(), "w").unwrap();
    let files = used.files.clone();
    fs::create_dir_all(files.join("sub")).unwrap();
    fs::write(files.join("sub/f"), "x").unwrap();
    // As some tools leave what they have downloaded.
    let mut rights = fs::metadata(files.join("sub")).unwrap().permissions();
    rights.set_readonly(true);
    fs::set_permissions(files.join("sub"), rights).unwrap();
    assert_eq!(try_remove(kept, &dropped("w")).await, Ok(false));
    assert!(files.join("sub/f").exists(), "an attempt uses it");
    drop(used);
    assert_eq!(try_remove(kept, &dropped("w")).await, Ok(true));
    assert!(!files.parent().unwrap().exists(), "nothing of it is left");
    // One that is not there any more is as good, and none is made for it.
    assert_eq!(try_remove(kept, &dropped("w")).await, Ok(true));
    assert!(!files.parent().unwrap().exists());
    assert_eq!(try_remove(kept, &dropped("..")).await, Ok(true));
    assert!(kept.exists());
}
