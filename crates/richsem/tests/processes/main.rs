//! Runs of several processes, played by threads of this one that talk as processes do: that they compute what
//! one computes on as many images, and that no one is left waiting for another that failed or was told to stop.
#![allow(clippy::unwrap_used)]

mod runs;
mod steps;

use std::{sync::Arc, time::Duration};

use richsem::{
    Error, Result,
    collective::{
        self, Collective, Pace,
        group::{Group, Joining},
        place::Place,
    },
    testing::normal,
};
use tch::Kind;
use torch_ext::Store;

/// The ranks of a run, each a thread of this process. They talk as processes do.
fn as_ranks<T: Send>(world: u64, run: impl Fn(Arc<Group>) -> T + Sync) -> Vec<T> {
    as_patient_ranks(world, PATIENCE, |group| run(group.unwrap()))
}

/// The same with another patience, and for those that do not come together.
fn as_patient_ranks<T: Send>(
    world: u64,
    patience: Duration,
    run: impl Fn(Result<Arc<Group>>) -> T + Sync,
) -> Vec<T> {
    tch::set_num_threads(1);
    let store = Store::serve(0, PATIENCE).unwrap();
    let rank = &|rank: u64| {
        let place = Place {
            rank,
            world,
            local_rank: rank as usize,
            host: "localhost".to_owned(),
            port: store.port(),
            has_store: true,
            attempt: "0".to_owned(),
        };
        let last_resort = Box::new(|error: &Error| panic!("not ended: {error}"));
        let joining = Joining { program: "test".to_owned(), patience, last_resort };
        run(Group::join(&place, joining))
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..world).map(|r| scope.spawn(move || rank(r))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

const PATIENCE: Duration = Duration::from_secs(60);

/// What each of three processes hears when one of them does something else than the others, which exchange a word.
fn heard(patience: Duration, odd: u64, does: impl Fn(&Group) + Sync) -> Vec<(u64, String)> {
    let hear = |group: Result<Arc<Group>>| {
        let group = group.unwrap();
        group.pace(Pace::Steps);
        if group.rank() == odd {
            does(&group);
        }
        match group.exchange(b"a word".to_vec()).unwrap_err() {
            Error::Process { rank, problem, .. } => (rank, problem),
            other => panic!("{other}"),
        }
    };
    as_patient_ranks(3, patience, hear)
}

#[test]
fn a_failure_reaches_all_and_names_its_process() {
    for odd in 0..3 {
        // An error.
        for (rank, problem) in heard(PATIENCE, odd, |group| group.fail("the disk is full")) {
            assert_eq!((rank, problem.as_str()), (odd, "the disk is full"));
        }
    }
    // At work for longer than a step takes. The three wait side by side; with less patience they might not even
    // meet on a machine with much else to do, or a slow name server (`.cargo/config.toml`).
    let slow = Duration::from_secs(15);
    let stuck = |_: &Group| std::thread::sleep(2 * slow);
    std::thread::scope(|scope| {
        for odd in 0..3 {
            scope.spawn(move || {
                for (rank, problem) in heard(slow, odd, stuck) {
                    let told = problem.contains("no training step for");
                    assert!(rank == odd && told, "{rank}: {problem}");
                }
            });
        }
    });
    // At another call. Rank 0 is the one who compares.
    for (rank, problem) in heard(PATIENCE, 2, |group| drop(group.gather(Vec::new()))) {
        assert!(rank == 2 && problem.contains("it is at another call"), "{rank}: {problem}");
    }
}

/// What each has, by rank, for all or for rank 0; sums; the mean of buffers in both kinds, the same bits in all.
#[test]
fn processes_hear_each_other() {
    let heard = as_ranks(3, |group| {
        let rank = group.rank();
        let said = |rank: u64| vec![rank as u8; 100_000 * rank as usize];
        let all: Vec<Vec<u8>> = (0..3).map(said).collect();
        assert_eq!(group.exchange(said(rank)).unwrap(), all);
        assert_eq!(group.gather(said(rank)).unwrap(), (rank == 0).then_some(all));
        let any = collective::any(group.as_ref(), [rank == 2, false]).unwrap();
        assert_eq!(any, [true, false]);
        let sums = collective::sums(group.as_ref(), &[1.0, rank as f64]).unwrap();
        assert_eq!(sums, [3.0, 3.0]);
        let buffers = [normal(rank, &[300_000]), normal(9 + rank, &[7]).to_kind(Kind::Double)];
        group.mean_gradients(&buffers).unwrap();
        group.leave().unwrap();
        buffers
    });
    for (i, kind) in [Kind::Float, Kind::Double].into_iter().enumerate() {
        let of = |rank: u64| match i {
            0 => normal(rank, &[300_000]),
            _ => normal(9 + rank, &[7]).to_kind(Kind::Double),
        };
        let expected = (of(0) + of(1) + of(2)) / 3.0;
        for buffers in &heard {
            assert_eq!(buffers[i].kind(), kind);
            assert_eq!(buffers[i], heard[0][i]);
            let apart = (&buffers[i] - &expected).abs().max().double_value(&[]);
            assert!(apart <= if i == 0 { 1e-6 } else { 1e-15 }, "{apart}");
        }
    }
}
