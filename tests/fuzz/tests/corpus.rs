//! What the fuzzer found worth keeping, once more.

/// A test for each target, of its own name, and one that none is left out.
macro_rules! replay {
    ($($target:ident),+ $(,)?) => {
        $(
            #[test]
            fn $target() {
                let inputs = fuzz::corpus::inputs(stringify!($target)).unwrap();
                assert!(!inputs.is_empty());
                inputs.iter().for_each(|input| fuzz::$target(input));
            }
        )+

        #[test]
        fn no_target_is_left_out() {
            let names = fuzz::TARGETS.map(|(name, _)| name);
            assert_eq!(names, [$(stringify!($target)),+]);
        }
    };
}

replay!(
    blk,
    net_transmit,
    net_receive,
    net_control,
    queue_chain,
    bridge,
    nbd,
    offload,
    http,
    endpoint,
    xenstore,
    gpt,
    device_tree,
    text,
);
