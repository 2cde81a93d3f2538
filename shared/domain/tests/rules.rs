//! The rules, shown: given a log, when a record comes, then that is the state.

mod rules {
    mod deciding;
    mod planning;
    mod properties;
    mod recorded;
    mod retention;
    mod transitions;
    mod voids;
    mod world;
}
