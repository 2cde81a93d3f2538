//! Pictures of the screen.

use conductor_domain::state::Leader;
use conductor_protocol::subject::Role;
use conductor_protocol::{OutcomeClass, TaskId};
use expect_test::expect;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::super::failures::Failed;
use super::super::pace::Rates;
use super::super::view::{AgentRow, QueueRow, Tasks};
use super::*;

const NOW_MS: u64 = 1_800_000_000_000;

fn view(agents: u32) -> Arc<View> {
    let leader = |epoch| Leader {
        epoch,
        holder: "host-77-ab".to_owned(),
        version: "1".to_owned(),
    };
    let mut ended = vec![0; 60];
    ended[40..].copy_from_slice(&[
        1, 2, 4, 8, 16, 20, 24, 28, 32, 36, 40, 36, 32, 20, 16, 8, 4, 2, 1, 0,
    ]);
    Arc::new(View {
        cell: "local".parse().unwrap(),
        now_ms: NOW_MS,
        seq: 1_234,
        lag: Some(7),
        last_record_ms: Some(NOW_MS - 1_500),
        leaders: vec![
            (Role::Orchestrator, Some(leader(3))),
            (Role::Scheduler, None),
        ],
        tasks: Tasks {
            accepted: 1_000,
            succeeded: 900,
            failed: 2,
            ..Tasks::default()
        },
        rates: Rates {
            over_s: 1,
            accepted: 12.0,
            started: 11.5,
            ended: 1.0,
        },
        ended,
        queues: vec![
            queue("builds", false, Some(4_200)),
            queue("default", true, None),
        ],
        agents: (1..=agents).map(agent).collect(),
        failures: vec![failed(Some("a1"), true), failed(None, false)],
        problem: None,
    })
}

fn queue(name: &str, is_paused: bool, oldest_ready_ms: Option<u64>) -> QueueRow {
    QueueRow {
        name: name.parse().unwrap(),
        is_paused,
        waiting: 96,
        running: 2,
        oldest_ready_ms,
    }
}

fn agent(number: u32) -> AgentRow {
    AgentRow {
        name: format!("a{number}").parse().unwrap(),
        status: "up",
        used: 1,
        slots: 4,
        for_ms: u64::from(number) * 3_600_000,
    }
}

fn failed(agent: Option<&str>, ends_task: bool) -> Failed {
    Failed {
        time_ms: NOW_MS - 60_000,
        task: TaskId::from_parts(NOW_MS, [7; 10]),
        queue: Some("builds".parse().unwrap()),
        class: OutcomeClass::Failed,
        agent: agent.map(|a| a.parse().unwrap()),
        attempt: agent.map(|_| 2),
        ends_task,
    }
}

fn picture(screen: &mut Screen, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen.draw(frame)).unwrap();
    let picture = terminal.backend().to_string();
    let lines = picture.lines().map(|l| l.trim_matches('"').trim_end());
    lines.collect::<Vec<_>>().join("\n")
}

fn press(screen: &mut Screen, code: KeyCode) -> Wish {
    screen.take(&Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

#[test]
fn everything_is_on_one_screen() {
    let mut screen = Screen::new(view(2));
    expect![[r#"
        cell local   seq 1234   lag 7   undecided 0   last record 07:59:58 (1.5s ago)
        leaders      orchestrator host-77-ab (epoch 3), scheduler none yet
        tasks        1000 accepted, 900 succeeded, 2 failed, 0 timed out, 0 cancelled
        per second   12.0 accepted, 11.5 started, 1.0 ended (over 1 s)
        last minute  ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▂▂▂▃▄▅▆▆▇███▇▅▄▃▂▂▂▁  40/s at most

        ▸ queues
        QUEUE    PAUSED  WAITING  RUNNING  OLDEST READY
        builds   -       96       2        4.2s
        default  paused  96       2        -

          agents
        AGENT  STATUS  USED/SLOTS  FOR
        a1     up      1/4         1h 0m
        a2     up      1/4         2h 0m

          last failures
        TIME      TASK                                  QUEUE   CLASS   AGENT  TRY  ENDED
        07:59:00  01a3185c-5000-7707-8707-070707070707  builds  failed  a1     2    task
        07:59:00  01a3185c-5000-7707-8707-070707070707  builds  failed  -      -    try



        q quit   p pause   Tab next table   ↑↓ scroll"#]]
    .assert_eq(&picture(&mut screen, 100, 24));
}

#[test]
fn what_does_not_fit_is_scrolled() {
    let mut screen = Screen::new(view(30));
    assert!(picture(&mut screen, 80, 24).contains("agents 1-5 of 30"));
    press(&mut screen, KeyCode::Tab);
    press(&mut screen, KeyCode::Down);
    expect![[r#"
        cell local   seq 1234   lag 7   undecided 0   last record 07:59:58 (1.5s ago)
        leaders      orchestrator host-77-ab (epoch 3), scheduler none yet
        tasks        1000 accepted, 900 succeeded, 2 failed, 0 timed out, 0 cancelled
        per second   12.0 accepted, 11.5 started, 1.0 ended (over 1 s)
        last minute  ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▂▂▂▃▄▅▆▆▇███▇▅▄▃▂▂▂▁  40/s

          queues
        QUEUE    PAUSED  WAITING  RUNNING  OLDEST READY
        builds   -       96       2        4.2s
        default  paused  96       2        -

        ▸ agents 2-6 of 30
        AGENT  STATUS  USED/SLOTS  FOR
        a2     up      1/4         2h 0m
        a3     up      1/4         3h 0m
        a4     up      1/4         4h 0m
        a5     up      1/4         5h 0m
        a6     up      1/4         6h 0m

          last failures
        TIME      TASK                                  QUEUE   CLASS   AGENT  TRY  ENDE
        07:59:00  01a3185c-5000-7707-8707-070707070707  builds  failed  a1     2    task
        07:59:00  01a3185c-5000-7707-8707-070707070707  builds  failed  -      -    try
        q quit   p pause   Tab next table   ↑↓ scroll"#]]
    .assert_eq(&picture(&mut screen, 80, 24));
    press(&mut screen, KeyCode::End);
    assert!(picture(&mut screen, 80, 24).contains("agents 26-30 of 30"));
    press(&mut screen, KeyCode::Up);
    assert!(picture(&mut screen, 80, 24).contains("agents 25-29 of 30"));
}

#[test]
fn a_paused_screen_stays_as_it_is() {
    let mut screen = Screen::new(view(1));
    press(&mut screen, KeyCode::Char('p'));
    screen.show(view(5));
    let paused = picture(&mut screen, 80, 24);
    assert!(
        paused.contains("PAUSED") && !paused.contains("a5"),
        "{paused}"
    );
    press(&mut screen, KeyCode::Char('p'));
    screen.show(view(5));
    assert!(picture(&mut screen, 80, 24).contains("a5"));
}

#[test]
fn three_keys_quit_and_others_do_not() {
    let mut screen = Screen::new(view(1));
    let with = |modifiers| Event::Key(KeyEvent::new(KeyCode::Char('c'), modifiers));
    assert_eq!(press(&mut screen, KeyCode::Char('q')), Wish::Quit);
    assert_eq!(press(&mut screen, KeyCode::Esc), Wish::Quit);
    assert_eq!(screen.take(&with(KeyModifiers::CONTROL)), Wish::Quit);
    assert_eq!(screen.take(&with(KeyModifiers::NONE)), Wish::Stay);
    assert_eq!(press(&mut screen, KeyCode::Enter), Wish::Stay);
}

#[test]
fn any_size_will_do_and_problems_are_said() {
    let mut with_problem = View::clone(&view(30));
    with_problem.problem = Some("the log does not answer\u{1b}[2J".to_owned());
    let mut screen = Screen::new(Arc::new(with_problem));
    for (width, height) in [(1, 1), (10, 3), (40, 8), (300, 100)] {
        picture(&mut screen, width, height);
    }
    assert!(picture(&mut screen, 100, 24).contains("PROBLEM      the log does not answer\\u{1b}"));
}

#[test]
fn the_text_holds_the_same() {
    expect![[r#"
        cell local   seq 1234   lag 7   undecided 0   last record 07:59:58 (1.5s ago)
        leaders      orchestrator host-77-ab (epoch 3), scheduler none yet
        tasks        1000 accepted, 900 succeeded, 2 failed, 0 timed out, 0 cancelled
        per second   12.0 accepted, 11.5 started, 1.0 ended (over 1 s)
        last minute  ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▂▂▂▃▄▅▆▆▇███▇▅▄▃▂▂▂▁  40/s at most

        queues
        QUEUE    PAUSED  WAITING  RUNNING  OLDEST READY
        builds   -       96       2        4.2s
        default  paused  96       2        -

        agents
        AGENT  STATUS  USED/SLOTS  FOR
        a1     up      1/4         1h 0m
        a2     up      1/4         2h 0m

        last failures
        TIME      TASK                                  QUEUE   CLASS   AGENT  TRY  ENDED
        07:59:00  01a3185c-5000-7707-8707-070707070707  builds  failed  a1     2    task
        07:59:00  01a3185c-5000-7707-8707-070707070707  builds  failed  -      -    try"#]]
    .assert_eq(&text::plain(&view(2)));
    let empty = View {
        queues: Vec::new(),
        agents: Vec::new(),
        failures: Vec::new(),
        ..View::clone(&view(0))
    };
    assert!(text::plain(&empty).ends_with("queues: none\n\nagents: none\n\nlast failures: none"));
}

#[test]
fn lines_are_shared() {
    assert_eq!(share(30, [5, 6, 7]), [5, 6, 7]);
    assert_eq!(share(18, [5, 33, 5]), [5, 8, 5]);
    assert_eq!(share(9, [30, 30, 30]), [3, 3, 3]);
    assert_eq!(share(0, [3, 3, 3]), [0, 0, 0]);
}
