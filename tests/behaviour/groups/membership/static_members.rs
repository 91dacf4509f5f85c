//! Static members: whose partitions wait for them, and who is fenced.

use super::*;

fn fixed(broker: &Broker, name: &str) -> ConsumerBuilder {
    member(broker).instance_id(name).rejoin_timeout(Duration::from_secs(60))
}

#[test]
fn the_partitions_of_a_static_member_wait_for_it() {
    let (broker, clock) = timed(4);
    let heard = Heard::default();
    for closes in [true, false] {
        let mut a = fixed(&broker, "a").open().unwrap();
        let mut b = heard.listen("b", fixed(&broker, "b")).open().unwrap();
        for _ in 0..3 {
            poll(&mut a);
            poll(&mut b);
        }
        assert_eq!(sizes(&[&a, &b]), [2, 2]);
        let (had, kept) = (a.assignment(), b.assignment());
        heard.take();
        if closes {
            a.close().unwrap();
        } else {
            drop(a);
        }
        clock.advance(Duration::from_secs(59));
        poll(&mut b);
        broker.tick().unwrap();
        poll(&mut b);
        assert_eq!(b.assignment(), kept, "taken from under a static member");
        let info = broker.admin().describe_group("g").unwrap();
        let away: Vec<_> = info.members.iter().filter(|it| !it.is_live).collect();
        assert_eq!((away.len(), &away[0].assignment), (1, &had));
        assert_eq!((away[0].instance_id.as_deref(), info.state), (Some("a"), GroupStatus::Stable));

        let mut back = fixed(&broker, "a").open().unwrap();
        poll(&mut b);
        assert_eq!((back.assignment(), b.assignment()), (had, kept));
        poll(&mut back);
        back.commit().unwrap();
        assert_eq!(heard.take(), [""; 0], "nobody else notices");
        drop(back);
        clock.advance(Duration::from_secs(60));
        poll(&mut b);
        assert_eq!(sizes(&[&b]), [4], "waited for in vain");
        drop(b);
        clock.advance(Duration::from_secs(60));
        broker.tick().unwrap();
    }
}

#[test]
fn the_partitions_of_a_static_member_wait_over_a_restart() {
    for closes in [true, false] {
        let dir = temp_dir();
        let clock = manual_clock();
        let open_broker = || quiet(dir.path()).clock(clock.clone()).open().unwrap();
        let broker = open_broker();
        fill(&broker, "t", 4);
        let mut a = fixed(&broker, "a").open().unwrap();
        let mut b = fixed(&broker, "b").open().unwrap();
        for _ in 0..3 {
            poll(&mut a);
            poll(&mut b);
        }
        let (had_a, had_b) = (a.assignment(), b.assignment());
        assert_eq!((had_a.len(), had_b.len()), (2, 2));
        if closes {
            drop((a, b));
            broker.close().unwrap();
        } else {
            // As when the process dies: nobody says good-bye.
            broker.close().unwrap();
            drop((a, b));
        }
        let broker = open_broker();
        // In the other order, and although the first could have all.
        let b = fixed(&broker, "b").open().unwrap();
        assert_eq!(b.assignment(), had_b);
        let a = fixed(&broker, "a").open().unwrap();
        assert_eq!(a.assignment(), had_a);
        drop((a, b));
        clock.advance(Duration::from_secs(60));
        broker.tick().unwrap();
        assert!(nobody_is_waited_for(&broker));
        broker.close().unwrap();
        let broker = open_broker();
        let other = member(&broker).open().unwrap();
        assert_eq!(other.assignment().len(), 4, "waited for although it was given up");
    }
}

/// Far before anybody else could be overdue.
#[test]
fn the_background_gives_up_a_static_member_while_all_others_are_parked() {
    let broker = Broker::in_memory().unwrap();
    fill(&broker, "t", 1);
    let open = || broker.consumer("g").subscribe(["t"]).max_poll_interval(PATIENCE * 100);
    let brief = Duration::from_millis(50);
    let mut gone = open().instance_id("a").rejoin_timeout(brief).open().unwrap();
    drain(&mut gone);
    gone.commit().unwrap();
    send_numbers(&broker, "t", 0, 10..11);
    let mut other = open().open().unwrap();
    let (parked, is_parked) = mpsc::channel();
    let waiting = thread::spawn(move || {
        parked.send(ThreadState::here()).unwrap();
        other.recv_timeout(PATIENCE).unwrap().map(|message| message.offset())
    });
    is_parked.recv().unwrap().wait_until_it_sleeps();
    drop(gone);
    assert_eq!(waiting.join().unwrap(), Some(10));
}

/// Members that are away are members of their groups.
fn nobody_is_waited_for(broker: &Broker) -> bool {
    broker.admin().groups().unwrap().iter().all(|group| group.members.is_empty())
}

#[test]
fn the_background_gives_up_a_static_member_of_the_last_run_that_nobody_joins_after() {
    let dir = temp_dir();
    let brief = Duration::from_millis(50);
    let broker = open_quiet(dir.path());
    fill(&broker, "t", 1);
    let gone = member(&broker).instance_id("a").rejoin_timeout(brief).open().unwrap();
    broker.close().unwrap();
    drop(gone);
    let broker = quiet(dir.path()).background(true).open().unwrap();
    within_patience("forgotten", || nobody_is_waited_for(&broker));
}

// RED: src/group/membership.rs
//   - match (self.presence.fenced_by(), &self.holder) {
//   + match (None::<u32>, &self.holder) {
#[test]
fn row_j05_of_two_consumers_with_one_instance_id_the_older_is_fenced() {
    let (broker, _) = timed(2);
    let heard = Heard::default();
    let mut old = heard.listen("old", fixed(&broker, "a")).open().unwrap();
    let handed = poll(&mut old);
    let mut new = fixed(&broker, "a").open().unwrap();
    assert_eq!(sizes(&[&new]), [2], "at once");
    assert!(matches!(old.commit(), Err(Error::Fenced { .. })));
    for refused in [
        old.commit(),
        old.commit_message(&handed[0]),
        old.commit_soon(),
        old.poll(NOW).map(drop),
        old.recv().map(drop),
        old.poll(NOW).map(drop),
    ] {
        let Err(Error::Fenced { id, epoch: 1, current: 2 }) = &refused else {
            panic!("{refused:?}")
        };
        assert_eq!(id, "a");
        assert!(refused.unwrap_err().is_fatal());
    }
    assert_eq!(heard.take(), ["old assigned 0 1", "old lost 0 1"]);
    drop(old);
    poll(&mut new);
    new.commit().unwrap();
    assert_eq!(broker.admin().describe_group("g").unwrap().members.len(), 1);
    // Another group, another namespace.
    let mut elsewhere = broker.consumer("h").subscribe(["t"]).instance_id("a").open().unwrap();
    poll(&mut elsewhere);
    poll(&mut new);
}

#[test]
fn a_parked_holder_of_an_instance_id_hears_that_it_is_fenced() {
    let (broker, _) = timed(1);
    let mut old = fixed(&broker, "a").open().unwrap();
    drain(&mut old);
    let (parked, is_parked) = mpsc::channel();
    let waiting = thread::spawn(move || {
        parked.send(ThreadState::here()).unwrap();
        old.recv()
    });
    is_parked.recv().unwrap().wait_until_it_sleeps();
    let _new = fixed(&broker, "a").open().unwrap();
    assert!(matches!(waiting.join().unwrap(), Err(Error::Fenced { .. })));
}

#[test]
fn an_evicted_static_member_is_not_waited_for() {
    let (broker, clock) = timed(2);
    let mut a = fixed(&broker, "a").open().unwrap();
    let mut b = member(&broker).open().unwrap();
    for _ in 0..2 {
        poll(&mut a);
        poll(&mut b);
    }
    clock.advance(INTERVAL);
    poll(&mut b);
    assert_eq!(sizes(&[&b]), [2]);
    drop(a);
    poll(&mut b);
    assert_eq!(sizes(&[&b]), [2]);
    let a = fixed(&broker, "a").open().unwrap();
    poll(&mut b);
    assert_eq!(sizes(&[&a, &b]), [0, 1]);
}

#[test]
fn an_instance_id_needs_a_group_and_a_name() {
    let (broker, _) = timed(1);
    let reader = broker.reader().subscribe(["t"]).instance_id("a").open();
    assert_eq!(refused_setting(reader), "instance_id");
    let by_hand = broker.consumer("g").assign([("t", 0)]).instance_id("a").open();
    assert_eq!(refused_setting(by_hand), "instance_id");
    let nameless = member(&broker).instance_id("").open();
    assert!(matches!(nameless, Err(Error::InvalidName { .. })));
    let restless = broker.consumer("g").subscribe(["t"]).max_poll_interval(NOW).open();
    assert_eq!(refused_setting(restless), "max_poll_interval");
}

#[test]
fn an_assignor_is_agreed_on_by_those_who_are_there() {
    let (broker, _) = timed(2);
    let open = |assignor| fixed(&broker, "a").assignor(assignor).open();
    let first = open(Assignor::CooperativeSticky).unwrap();
    let other = member(&broker).assignor(Assignor::Range).open();
    assert_eq!(refused_setting(other), "assignor");
    drop(first);
    // It is waited for, and is not there: its successor may have changed its mind.
    let successor = open(Assignor::Range).unwrap();
    assert_eq!(successor.assignment().len(), 2);
    let info = broker.admin().describe_group("g").unwrap();
    assert_eq!(info.assignor, Some(Assignor::Range));
}
