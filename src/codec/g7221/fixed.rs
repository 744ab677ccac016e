//! The fixed-point operations that the Recommendation's result depends on, bit for bit (its basic
//! operators, ITU-T G.191): 16-bit numbers, 32-bit sums, saturation in place of overflow.

/// The nearest 16-bit number.
#[inline(always)]
pub fn saturate(value: i32) -> i16 {
    value.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
}

/// A sum of products divided by two to the power of `SHIFT`, rounded half up and saturated.
///
/// The operators would double each product (`L_mult`), shift left by 15 − `SHIFT` (`L_shl`), add a
/// half and keep the upper word (`round`), saturating at each step. One saturation at the end is
/// the same, since every step before it is monotonic, as long as the sum itself is exact.
#[inline(always)]
pub fn rounded<const SHIFT: u32>(sum: i32) -> i16 {
    saturate(sum.wrapping_add(1 << (SHIFT - 1)) >> SHIFT)
}

/// `a × b + c × d`. Exact for all factors but four times −32,768, which no table holds.
#[inline(always)]
pub fn products(a: i16, b: i16, c: i16, d: i16) -> i32 {
    (i32::from(a).wrapping_mul(i32::from(b))).wrapping_add(i32::from(c).wrapping_mul(i32::from(d)))
}
