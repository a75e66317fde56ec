use super::*;
use crate::data::sampler::LastBatch;

fn share(batch_size: usize, rank: usize, world: usize) -> Share {
    Share { batch_size, rank, world, last: LastBatch::Wrap }
}

fn order(kind: OrderConfig, items: usize, images: usize, share: Share, epoch: u64) -> Order {
    Order::new(kind, 7, items, images, share, epoch).unwrap()
}

fn batch(order: &Order, position: u64) -> Vec<Vec<u32>> {
    (0..order.share.batch_size)
        .map(|slot| {
            order.sample(position, slot, &mut Random::new(1, Stream::Test, position, slot as u64))
        })
        .collect()
}

/// All ranks' images, in the order of the run.
fn row(items: usize, images: usize, batch_size: usize, world: usize, positions: u64) -> Vec<u32> {
    let orders: Vec<_> = (0..world)
        .map(|rank| order(OrderConfig::Shuffled, items, images, share(batch_size, rank, world), 0))
        .collect();
    (0..positions).flat_map(|p| orders.iter().flat_map(move |o| batch(o, p)).flatten()).collect()
}

#[test]
fn a_pass_shows_every_image_once_on_any_number_of_devices() {
    for (items, images, batch_size, world) in
        [(10, 4, 2, 2), (23, 4, 3, 1), (7, 1, 2, 3), (3, 4, 4, 2)]
    {
        let row = row(items, images, batch_size, world, 12);
        assert_eq!(row.len(), 12 * images * batch_size * world);
        let passes: Vec<Vec<u32>> = row
            .chunks_exact(items)
            .map(|pass| {
                let mut sorted = pass.to_vec();
                sorted.sort_unstable();
                assert_eq!(sorted, (0..items as u32).collect::<Vec<_>>());
                pass.to_vec()
            })
            .collect();
        assert!(items < 4 || passes[0] != passes[1], "another order each pass");
    }
    assert_eq!(row(23, 4, 3, 1, 6), row(23, 4, 1, 3, 6), "devices share one row");
}

#[test]
fn a_position_gives_the_same_wherever_one_starts() {
    let make = |seed| Order::new(OrderConfig::Shuffled, seed, 9, 4, share(2, 1, 2), 0).unwrap();
    let whole = make(7);
    let batches: Vec<_> = (0..40).map(|p| batch(&whole, p)).collect();
    for position in [39, 17, 0, 38, 1] {
        assert_eq!(batch(&make(7), position), batches[position as usize]);
        assert_eq!(batch(&whole, position), batches[position as usize], "also going back");
    }
    assert_ne!(batch(&make(8), 0), batches[0]);
}

#[test]
fn the_official_order_begins_anew_each_epoch() {
    let of = |rank| order(OrderConfig::Official, 20, 4, share(2, rank, 2), 3);
    let first = |o: &Order, p| -> Vec<u32> { batch(o, p).iter().map(|s| s[0]).collect() };
    let (a, b) = (of(0), of(1));
    let mut epoch: Vec<u32> = (0..3).flat_map(|p| [first(&a, p), first(&b, p)].concat()).collect();
    for p in 0..6 {
        assert_eq!(first(&a, p), first(&a, p % 3), "the same again in the next epoch");
    }
    // Rank r of 2 takes entries r, r + 2, .. of the one permutation: 12 in an epoch of 3 batches.
    let permutation = a.permutation(0);
    assert_eq!(first(&a, 1), [permutation[4], permutation[6]]);
    assert_eq!(first(&b, 1), [permutation[5], permutation[7]]);
    epoch.sort_unstable();
    epoch.dedup();
    assert_eq!(epoch.len(), 12);
    // The other tiles are drawn: over many samples, each of the 20 as often as any other.
    let mut counts = [0u32; 20];
    for p in 0..1000 {
        for sample in batch(&a, p) {
            assert_eq!(sample.len(), 4);
            for &image in &sample[1..] {
                counts[image as usize] += 1;
            }
        }
    }
    // 6000 draws: 300 each, five standard deviations are 85.
    assert!(counts.iter().all(|c| c.abs_diff(300) < 85), "{counts:?}");
}

#[test]
fn the_official_order_starts_over_when_a_rank_has_no_whole_batch_left() {
    // 5 images a rank, batches of 2: two batches, then again the first.
    let o = order(OrderConfig::Official, 10, 1, share(2, 0, 2), 100);
    assert_eq!(batch(&o, 2), batch(&o, 0));
    assert_ne!(batch(&o, 1), batch(&o, 0));
    // Fewer images than a batch holds.
    let o = order(OrderConfig::Official, 1, 4, share(3, 1, 2), 5);
    assert_eq!(batch(&o, 4).concat(), [0; 12]);
}

#[test]
fn spares_are_the_images_behind_the_batch_each_once() {
    for kind in [OrderConfig::Shuffled, OrderConfig::Official] {
        let o = order(kind, 12, 1, share(2, 0, 1), 6);
        let spares: Vec<u32> = o.spares(1).collect();
        assert_eq!(spares[..2], batch(&o, 2).concat(), "{kind:?}");
        let mut sorted = spares[..8].to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!((spares.len(), sorted.len()), (12, 8));
    }
}

#[test]
fn what_cannot_be_ordered_is_refused() {
    let new = |items, share, epoch| Order::new(OrderConfig::Official, 0, items, 4, share, epoch);
    for (result, expected) in [
        (new(0, share(1, 0, 1), 1), "no images"),
        (new(5, share(0, 0, 1), 1), "a batch of 0"),
        (new(5, share(1, 2, 2), 1), "a rank below 2, got a batch of 1 on rank 2"),
        (new(5, share(1, 0, 1), 0), "at least one batch"),
        (new(1 << 33, share(1, 0, 1), 1), "more than 4,294,967,295"),
    ] {
        let text = result.unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
}
