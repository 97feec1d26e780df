//! Estimates for coefficients that a progressive file has not sent: its last scans are missing.
//!
//! As libjpeg-turbo does ("block smoothing"), the lowest coefficients of a block are estimated from the DC coefficients of the
//! 5 x 5 blocks around it, by the scheme of T.81 K.8 on a larger window, if they are zero and not fully known.

use super::frame::Frame;
use super::progressive::Progress;
use super::scan::Block;

/// Weights of the DC coefficients around a block, row by row.
type Window = [[i32; 5]; 5];

/// The coefficients that are estimated, in zigzag order from the first behind the DC coefficient on: their natural places.
const PLACES: [usize; 9] = [1, 8, 16, 9, 2, 3, 10, 17, 24];

/// By coefficient, where some AC coefficients were sent: the first five are estimated.
const SOME_AC: [Window; 5] = [
    HORIZONTAL,
    transposed(&HORIZONTAL),
    transposed(&HORIZONTAL_2),
    [[0, -1, 0, 1, 0], [-1, 10, 0, -10, 1], [0; 5], [1, -10, 0, 10, -1], [0, 1, 0, -1, 0]],
    HORIZONTAL_2,
];
const HORIZONTAL: Window = [[0; 5], [0; 5], [-7, 50, 0, -50, 7], [0; 5], [0; 5]];
const HORIZONTAL_2: Window = [[0; 5], [0; 5], [-1, 13, -24, 13, -1], [0; 5], [0; 5]];

/// By coefficient, where nothing but DC coefficients was sent.
const DC_ONLY: [Window; 9] = [
    DC_ONLY_1,
    transposed(&DC_ONLY_1),
    transposed(&DC_ONLY_2),
    [[-1, 0, 0, 0, 1], [0, 9, 0, -9, 0], [0; 5], [0, -9, 0, 9, 0], [1, 0, 0, 0, -1]],
    DC_ONLY_2,
    DC_ONLY_3,
    transposed(&DC_ONLY_21),
    DC_ONLY_21,
    transposed(&DC_ONLY_3),
];
const DC_ONLY_1: Window =
    [[-1, -1, 0, 1, 1], [-3, 13, 0, -13, 3], [-3, 38, 0, -38, 3], [-3, 13, 0, -13, 3], [-1, -1, 0, 1, 1]];
const DC_ONLY_2: Window = [[0; 5], [0, 2, -5, 2, 0], [1, 7, -14, 7, 1], [0, 2, -5, 2, 0], [0; 5]];
const DC_ONLY_3: Window = [[0; 5], [0, 1, 0, -1, 0], [0, 2, 0, -2, 0], [0, 1, 0, -1, 0], [0; 5]];
const DC_ONLY_21: Window = [[0; 5], [0, 1, 0, -1, 0], [0, -3, 0, 3, 0], [0, 1, 0, -1, 0], [0; 5]];
/// The DC coefficient itself, where nothing else was sent.
const DC: Window =
    [[-2, -6, -8, -6, -2], [-6, 6, 42, 6, -6], [-8, 42, 152, 42, -8], [-6, 6, 42, 6, -6], [-2, -6, -8, -6, -2]];

const fn transposed(window: &Window) -> Window {
    let mut out = [[0; 5]; 5];
    let mut i = 0;
    while i < 25 {
        out[i / 5][i % 5] = window[i % 5][i / 5];
        i += 1;
    }
    out
}

/// Whether estimates are called for: every component's DC coefficients were sent, and of some component not all bits of the
/// lowest others. A step of zero would leave nothing to divide by.
pub fn applies(frame: &Frame, progress: &Progress) -> bool {
    let estimable = |i: usize| {
        let steps = frame.components()[i].quantizer;
        steps.is_some_and(|steps| steps[0] != 0 && PLACES.iter().all(|&place| steps[place] != 0))
            && progress.of(i)[0].is_some()
    };
    let components = 0..frame.components().len();
    frame.progressive
        && components.clone().all(estimable)
        && components.into_iter().any(|i| progress.of(i)[1..=PLACES.len()].iter().any(|&known| known != Some(0)))
}

/// Appends the `y`-th row of blocks of component `i` to `out`, with its estimates. `blocks` are the component's, padded.
pub fn row(frame: &Frame, progress: &Progress, i: usize, y: usize, blocks: &[Block], out: &mut Vec<Block>) {
    let component = &frame.components()[i];
    let Some(steps) = &component.quantizer else { return };
    let step = |place: usize| i64::from(steps[place]);
    let known = &progress.of(i)[1..=PLACES.len()];
    let dc_only = known.iter().all(Option::is_none);
    let windows = if dc_only { &DC_ONLY[..] } else { &SOME_AC[..] };
    let estimate = |window: &Window, around: &Window, step: i64| {
        let weighted = window
            .iter()
            .flatten()
            .zip(around.iter().flatten())
            .map(|(&weight, &dc)| i64::from(weight) * i64::from(dc));
        let sum = i64::from(steps[0]) * weighted.sum::<i64>();
        ((step << 7) + sum.abs()) / (step << 8) * sum.signum()
    };

    let rows = rows_around(frame, i, y);
    let across = component.padded_across;
    let dc = |y: usize, x: usize| i32::from(blocks[y * across + x][0]);
    for x in 0..component.blocks_across {
        let columns = [x.saturating_sub(2), x.saturating_sub(1), x, x + 1, x + 2];
        let columns = columns.map(|x| x.min(component.blocks_across - 1));
        let around = rows.map(|y| columns.map(|x| dc(y, x)));
        let mut block = blocks[y * across + x];
        for ((&place, window), known) in PLACES.iter().zip(windows).zip(known) {
            if block[place] != 0 || *known == Some(0) {
                continue;
            }
            let value = estimate(window, &around, step(place));
            // No more than the bits that are still to come can be.
            let most = known.map_or(i64::MAX, |low| (1 << low) - 1);
            block[place] = value.clamp(-most, most) as i16;
        }
        if dc_only {
            block[0] = estimate(&DC, &around, step(0)) as i16;
        }
        out.push(block);
    }
    out.resize(out.len() + across - component.blocks_across, [0; 64]);
}

/// The rows of blocks from two above the `y`-th to two below it. Those outside the image are the outermost ones: libjpeg-turbo
/// numbers the rows of the last row of MCUs by how many of them it holds, and so can take the nearer of two above.
fn rows_around(frame: &Frame, i: usize, y: usize) -> [usize; 5] {
    let component = &frame.components()[i];
    let (mcu_row, last) = (y / component.v, frame.mcus_down - 1);
    let held = if mcu_row < last { component.v } else { component.blocks_down - last * component.v };
    let (number, count) = (mcu_row * held + y % component.v, held * frame.mcus_down);
    let above = if number > 0 { y - 1 } else { y };
    let above_that = if number > 1 { y - 2 } else { above };
    let below = if number + 1 < count { y + 1 } else { y };
    let below_that = if number + 2 < count { y + 2 } else { below };
    [above_that, above, y, below, below_that]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_tell_flat_from_sloped() {
        let sum = |window: &Window| window.iter().flatten().sum::<i32>();
        assert!(SOME_AC.iter().chain(&DC_ONLY).all(|window| sum(window) == 0));
        assert_eq!(sum(&DC), 256);
    }
}
