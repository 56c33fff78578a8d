use super::*;

fn sizes() -> impl Iterator<Item = u16> {
    (MIN_SYMBOL_SIZE..=MAX_SYMBOL_SIZE).step_by(usize::from(SYMBOL_ALIGN))
}

/// Blocks tile the object and symbols tile the blocks; looks at a few blocks of large objects.
fn check(layout: &Layout, context: &str) {
    let count = layout.block_count();
    let mut total = 0_u64;
    let mut end = 0_u64;
    if count == 0 {
        assert_eq!(layout.object_size(), 0, "{context}");
    }
    let looked_at: Vec<u32> =
        if count <= 6 { (0..count).collect() } else { (0..3).chain(count - 3..count).collect() };
    for &b in &looked_at {
        let block = BlockIndex(b);
        if b == 0 || looked_at.contains(&(b - 1)) {
            assert_eq!(layout.block_offset(block), end, "{context}");
        }
        let len = layout.block_len(block);
        assert!(len > 0 && len <= 1 << layout.block_log2(), "{context}");
        assert!(len == 1 << layout.block_log2() || b == count - 1, "{context}");
        end = layout.block_offset(block) + len as u64;
        let k = layout.source_symbols(block);
        assert!((1..=MAX_SOURCE_SYMBOLS).contains(&k), "{context}");
        let mut at = 0;
        for id in 0..k {
            let range = layout.symbol_range(block, Esi(id));
            assert_eq!(range.start, at, "{context}");
            assert!(range.len() == usize::from(layout.symbol_size()) || id == k - 1, "{context}");
            assert!(!range.is_empty(), "{context}");
            at = range.end;
        }
        assert_eq!(at, len, "{context}");
        for id in [k, k + 1, u32::MAX] {
            assert_eq!(layout.symbol_range(block, Esi(id)), len..len, "{context}");
        }
        total += u64::from(k);
    }
    assert_eq!(end, layout.object_size(), "{context}");
    if looked_at.len() == count as usize {
        assert_eq!(layout.total_source_symbols(), total, "{context}");
    }
    for b in [count, u32::MAX].into_iter().filter(|b| *b >= count) {
        assert_eq!(layout.block_len(BlockIndex(b)), 0, "{context}");
        assert_eq!(layout.source_symbols(BlockIndex(b)), 0, "{context}");
        assert!(layout.symbol_range(BlockIndex(b), Esi(0)).is_empty(), "{context}");
    }
}

#[test]
fn an_empty_object_has_no_blocks() {
    let layout = Layout::choose(0, 1408).unwrap();
    assert_eq!((layout.block_count(), layout.total_source_symbols()), (0, 0));
    check(&layout, "empty");
}

#[test]
fn the_usual_choice_is_one_mebibyte() {
    for (size, blocks, last) in [(1, 1, 1), (1 << 20, 1, 745), ((1 << 20) + 1, 2, 1), (1 << 36, 1 << 16, 745)]
    {
        let layout = Layout::choose(size, 1408).unwrap();
        assert_eq!(layout.block_log2(), DEFAULT_BLOCK_LOG2, "{size}");
        assert_eq!(layout.block_count(), blocks, "{size}");
        assert_eq!(layout.source_symbols(BlockIndex(blocks - 1)), last, "{size}");
        check(&layout, &size.to_string());
    }
}

#[test]
fn blocks_grow_with_the_object() {
    let log2 = |size, symbol| Layout::choose(size, symbol).unwrap().block_log2();
    assert_eq!(log2((1 << 36) + 1, 1408), 21);
    assert_eq!(log2(1 << 40, 1408), 24);
    // From here on the number of blocks grows, and then the blocks again.
    assert_eq!(log2(1 << 50, 1408), 24);
    assert_eq!(log2((u64::from(u32::MAX)) << 24, 1408), 24);
    assert_eq!(log2(1 << 56, 1408), 25);
    assert_eq!(log2(1 << 57, 1408), 26);
    assert_eq!(log2(1 << 59, 8896), 28);
    // Small symbols: K is the limit.
    assert_eq!(log2(1 << 45, 64), 21);
}

#[test]
fn the_largest_object_of_each_symbol_size() {
    for symbol_size in sizes() {
        let most = largest_object(symbol_size);
        let layout = Layout::choose(most, symbol_size).unwrap();
        assert_eq!(layout.block_count(), u32::MAX);
        check(&layout, &format!("{symbol_size}"));
        for size in [most + 1, MAX_OBJECT_SIZE, MAX_OBJECT_SIZE + 1, u64::MAX] {
            assert_eq!(Layout::choose(size, symbol_size), Err(LayoutError::TooLarge(size, symbol_size)));
        }
    }
    let text = LayoutError::TooLarge(u64::MAX, 1408).to_string();
    assert!(text.contains("at most 288230376084602880 bytes"), "{text}");
}

#[test]
fn parameters_from_the_network_are_checked() {
    for symbol_size in [0, 1, 63, 65, 1400, 8897, 8960, u16::MAX] {
        assert_eq!(Layout::new(1, 20, symbol_size), Err(LayoutError::SymbolSize(symbol_size)));
        assert_eq!(Layout::choose(1, symbol_size), Err(LayoutError::SymbolSize(symbol_size)));
    }
    for block_log2 in [0, 9, 29, 63, 64, 255] {
        assert_eq!(Layout::new(1, block_log2, 8896), Err(LayoutError::BlockSize(block_log2)));
    }
    assert_eq!(Layout::new(1, 22, 64), Err(LayoutError::BlockSize(22)));
    assert!(Layout::new(1, 21, 64).is_ok());
    assert_eq!(Layout::new(1 << 42, 10, 64), Err(LayoutError::BlockSize(10)));
    assert!(Layout::new((1 << 42) - 1024, 10, 64).is_ok());
    assert_eq!(
        Layout::new(MAX_OBJECT_SIZE + 1, 28, 8896),
        Err(LayoutError::TooLarge(MAX_OBJECT_SIZE + 1, 8896))
    );
    assert_eq!(Layout::new(MAX_OBJECT_SIZE, 28, 8896), Err(LayoutError::BlockSize(28)));
}

#[test]
fn tiles_at_random() {
    for seed in 0..150 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let object_size = rng.u64(..) >> rng.u32(1..64);
        let symbol_size = rng.u16(1..=139) * 64;
        let block_log2 = rng.u8(8..30);
        let context = format!("seed {seed}: {object_size} {block_log2} {symbol_size}");
        if let Ok(layout) = Layout::new(object_size, block_log2, symbol_size) {
            check(&layout, &context);
        }
        if let Ok(layout) = Layout::choose(object_size, symbol_size) {
            check(&layout, &context);
            assert_eq!(Layout::new(object_size, layout.block_log2(), symbol_size), Ok(layout), "{context}");
        } else {
            assert!(object_size > largest_object(symbol_size), "{context}");
        }
    }
}

#[test]
fn a_growing_object_gains_whole_blocks_until_it_is_sealed() {
    const BLOCK: u64 = 1 << 20;
    let growing = |blocks: u64| Extent { size: blocks * BLOCK, sealed: false };
    let layout = Layout::of(growing(0), 20, 1408).unwrap();
    assert_eq!((layout.block_count(), layout.most_source_symbols()), (0, 745));
    assert_eq!(layout.source_symbols(BlockIndex(0)), 0);
    let one = layout.grown(growing(1)).unwrap();
    assert_eq!(one.block_len(BlockIndex(0)), 1 << 20);
    let three = one.grown(growing(3)).unwrap();
    assert_eq!(three.grown(growing(3)), Ok(three));
    let sealed = three.grown(Extent::sealed(3 * BLOCK + 1)).unwrap();
    assert_eq!((sealed.block_count(), sealed.block_len(BlockIndex(3))), (4, 1));
    assert_eq!(sealed.grown(sealed.extent()), Ok(sealed));
    for (before, after) in [
        (three, growing(2)),
        (three, Extent::sealed(2 * BLOCK)),
        // One byte more was promised.
        (three, Extent::sealed(3 * BLOCK)),
        (sealed, growing(4)),
        (sealed, Extent::sealed(3 * BLOCK + 2)),
    ] {
        let changed = LayoutError::Changed(before.object_size(), after.size);
        assert_eq!(before.grown(after), Err(changed), "{after:?}");
    }
    let ragged = Extent { size: 3 * BLOCK + 1, sealed: false };
    assert_eq!(three.grown(ragged), Err(LayoutError::Ragged(3 * BLOCK + 1)));
    assert!(layout.grown(Extent::sealed(0)).is_ok_and(|empty| empty.block_count() == 0));
    assert!(layout.grown(Extent::sealed(BLOCK)).is_ok_and(|whole| whole.block_count() == 1));
}
