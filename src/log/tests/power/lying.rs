//! A disk that says that it has synced, and has not. Nothing prevents the loss; but what is then
//! read is what was appended, or an error, or less of it.

use super::check::any_ops;
use super::world::World;
use super::*;

/// B15: after syncs that did nothing, any image is opened, and whatever can be read of it is right.
// RED: src/format/batch/decode.rs
//   - let sound = plain_checksum(bytes, fixed, records, key) == header.checksum
//   + let sound = plain_checksum(bytes, fixed, records, key) | 1 > 0
#[test]
fn row_b15_what_a_lying_disk_has_lost_is_an_error_or_a_cut_and_never_other_bytes() {
    let (mut cut, mut damaged, mut refused) = (0, 0, 0);
    for seed in 0..40 * effort() {
        let mut random = Random::new(seed ^ 0xB15);
        let mut world = World::new(seed, &format!("seed {seed}"));
        let honest = any_ops(&mut random, 6);
        assert!(world.run(&honest));
        world.disk.lie();
        let believed: Vec<_> =
            any_ops(&mut random, 10).into_iter().filter(|op| op.is_append_only()).collect();
        assert!(world.run(&believed));
        for number in 0..24 {
            let how = PowerCut::in_turn(number);
            let image = world.disk.power_cut(&mut || random.next(), how);
            let case = format!("seed {seed}, image {number}, {how:?}, {honest:?}, {believed:?}");
            let rig = Rig::simulated(&image, seed + 1);
            let known = world.oracle.known(random.below(2) == 0, &AFTER_CUT);
            let (log, report) = match rig.open(&known) {
                Ok(opened) => opened,
                Err(Error::Corrupt(_)) => {
                    refused += 1;
                    continue;
                }
                Err(other) => panic!("{case}: {other:?}"),
            };
            cut += u64::from(log.log_end() < world.oracle.durable);
            damaged += u64::from(!report.corrupt.is_empty());
            world.oracle.check_bytes(&log, &case);
        }
    }
    eprintln!("lying disk: {cut} cut, {damaged} damaged, {refused} refused");
    assert!(cut > 10 && damaged > 10, "{cut} cut, {damaged} damaged");
}
