//! Sizes: `1024x1792`.

/// Width and height of a size that names them.
pub(super) fn sides(size: &str) -> Option<(u32, u32)> {
    let (width, height) = size.trim().split_once(['x', 'X', '×', '*'])?;
    let side = |text: &str| text.trim().parse::<u32>().ok().filter(|side| (16..=16_384).contains(side));
    Some((side(width)?, side(height)?))
}

/// Of some proportions (`16:9`) the one that is nearest to a size.
pub(super) fn nearest<'a>((width, height): (u32, u32), known: &[&'a str]) -> Option<&'a str> {
    let wanted = (f64::from(width) / f64::from(height)).ln();
    let distance = |proportion: &str| {
        let (width, height) = proportion.split_once(':')?;
        let (width, height): (f64, f64) = (width.parse().ok()?, height.parse().ok()?);
        Some(((width / height).ln() - wanted).abs())
    };
    known
        .iter()
        .filter_map(|proportion| Some((distance(proportion)?, *proportion)))
        .min_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, proportion)| proportion)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_proportions() {
        for (size, expected) in [
            ("1024x1792", Some((1024, 1792))),
            (" 512 X 512 ", Some((512, 512))),
            ("1024*768", Some((1024, 768))),
            ("auto", None),
            ("0x10", None),
            ("10x", None),
            ("99999x99999", None),
        ] {
            assert_eq!(sides(size), expected, "{size}");
        }
        let known = ["1:1", "9:16", "16:9", "3:2"];
        for (size, expected) in
            [((1024, 1024), "1:1"), ((1024, 1792), "9:16"), ((1792, 1024), "16:9"), ((1536, 1024), "3:2")]
        {
            assert_eq!(nearest(size, &known), Some(expected));
        }
        assert_eq!(nearest((1, 1), &[]), None);
    }
}
