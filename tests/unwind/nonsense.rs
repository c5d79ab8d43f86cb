//! Bytes that no compiler wrote: a step ends, whatever they are, and reads little.

use std::{env, fs};

use verikd::unwind::{Counter, Image, Registers, What, step};

use crate::image::{Loaded, native};

const BASE: u64 = 0xffff_f800_1000_0000;

fn seeds(small: u64) -> u64 {
    env::var("VERIKD_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(small)
}

#[test]
fn damaged_images_end_in_few_reads() {
    let whole = Loaded::new(&fs::read(native("code.dll")).unwrap(), BASE);
    for seed in 0..seeds(2_000) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut damaged = Loaded { image: whole.image, bytes: whole.bytes.clone() };
        for _ in 0..random.usize(1..64) {
            let at = random.usize(0x1000..damaged.bytes.len());
            damaged.bytes[at] = random.u8(..);
        }
        if random.u8(..) < 32 {
            damaged.image.table = random.u32(..);
            damaged.image.table_size = random.u32(..);
        }
        let general = std::array::from_fn(|_| random.bool().then(|| random.u64(..)));
        let registers = Registers {
            rip: BASE.wrapping_add(random.u64(0..0x3000)),
            rsp: if random.bool() { u64::MAX - 8 } else { random.u64(..) },
            general,
        };
        let counter = if random.bool() { Counter::Exact } else { Counter::Return };
        let mut reads = 0;
        let mut read = |what, at: u64, buf: &mut [u8]| {
            reads += 1;
            match what {
                What::Stack => {
                    buf.fill(random.u8(..));
                    Ok(())
                }
                _ => damaged.read(at, buf),
            }
        };
        let _ = step(&damaged.image, &registers, counter, &mut read);
        assert!(reads < 32 * 300, "seed {seed}: {reads} reads");
    }
}

#[test]
fn noise_ends_in_few_reads() {
    for seed in 0..seeds(2_000) {
        let mut random = fastrand::Rng::with_seed(seed);
        let image =
            Image { base: random.u64(..), size: u32::MAX, table: random.u32(..), table_size: random.u32(..) };
        let registers =
            Registers { rip: image.base.wrapping_add(random.u32(..).into()), ..Registers::default() };
        let mut reads = 0;
        let mut read = |_, _, buf: &mut [u8]| {
            reads += 1;
            random.fill(buf);
            Ok::<_, ()>(())
        };
        let _ = step(&image, &registers, Counter::Exact, &mut read);
        assert!(reads < 32 * 300, "seed {seed}: {reads} reads");
    }
}
