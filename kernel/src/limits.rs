//! Every fixed size in one table.

/// Bytes of a page, of ours and of every guest's.
pub const PAGE_BYTES: usize = 4096;

/// First address that our page tables cannot map.
pub const ADDRESS_LIMIT: usize = 1 << 39;

/// What one second-stage block covers: Xen gives RAM in such blocks, each of it contiguous in the machine.
pub const BLOCK_BYTES: usize = 2 << 20;

/// What the heap has at the start, beside what the pager needs, but no more than this share of RAM.
pub const HEAP_START_BYTES: usize = 448 << 10;
/// See [`HEAP_START_BYTES`].
pub const HEAP_SHARE: usize = 3;
/// The heap grows when less of it is free, ...
pub const HEAP_LOW_BYTES: usize = 192 << 10;
/// ... by so much, as long as the RAM behind it can be had.
pub const HEAP_STEP_BYTES: usize = 64 << 10;

/// Heap that must be free before one more device is taken on. A guest's demands are refused, never the kernel's.
pub const HEAP_HEADROOM_BYTES: usize = 96 << 10;

/// Most physical devices that are taken from the device tree.
pub const PASSTHROUGH_MAX: usize = 16;
/// Most bytes of registers that one of them may have.
pub const REGISTERS_MAX_BYTES: u64 = 64 << 10;

/// Sizes of the pool of memory for devices, the largest that can be had is taken; all of it lies in one
/// [`BLOCK_BYTES`].
pub const DMA_POOL_BYTES: [usize; 4] = [2 << 20, 1 << 20, 512 << 10, 256 << 10];
/// Share of the free RAM that the pool may take.
pub const DMA_POOL_SHARE: usize = 2;
/// Runs of frames that are tried for a size of the pool.
pub const DMA_POOL_TRIES: usize = 8;

/// Share of that pool that a NIC may take.
pub const NIC_DMA_SHARE: usize = 4;

/// Frame numbers for single pages of others: shared info, one ioreq page a guest, rings and other pages that guests grant,
/// and while addresses of our own pages are asked for, the grant table and a granted page. One second-stage table.
pub const SINGLE_PAGES: usize = 512;

/// Granted pages that one device may have mapped: rings take 3 to 6.
pub const GRANTS_MAPPED_PER_DEVICE: usize = 32;
// A guest has at most 11 devices (libxl, `VIRTIO_MMIO_DEV_SIZE` and the interrupts for them): one cannot take
// all. The ninth guest with as many may find none left.
const _: () = assert!(11 * GRANTS_MAPPED_PER_DEVICE < SINGLE_PAGES);
/// Of these, how many are left to the rings.
pub const GRANTS_FOR_RINGS: usize = 8;

/// Buffers that one device may have under way where its guest grants them: to remember each takes 16 bytes of heap. A
/// request has 256 at most.
pub const GRANTED_REGIONS_PER_DEVICE: usize = 1024;

/// What a request has more bytes than this of is mapped, else Xen copies it. No request is so large: what is mapped is copied
/// all the same, by us, and to unmap it flushes all our TLB entries on all processors, once a page.
pub const GRANT_COPY_MAX_BYTES: u32 = u32::MAX;

/// Looks for pages that are missing, before those of many requests are pinned, that may find none in a row: then there are no more
/// until one was missing. A device looks twice for each batch of requests.
pub const IDLE_LOOKS_MAX: u32 = 4;

/// Accesses of one guest's vCPUs, kicks among them, that are answered until the loop has
/// looked at everything once.
pub const ACCESSES_PER_TURN: usize = 16;
/// Changes of a driver's trouble with grants that are told in xenstore while its device is there: a guest can make them.
pub const NEWS_PER_DEVICE: usize = 16;

/// Free frames below which the window gives slots back that are out of our RAM ...
pub const FRAMES_LOW: usize = 32;
/// ... until so many are free. Above that it may take them.
pub const FRAMES_HIGH: usize = 64;

/// Turns of the loop after which RAM that could not be had is asked for again.
pub const TEND_AGAIN_TURNS: u32 = 4096;

/// The window for guests' pages is by default so many times our RAM.
pub const WINDOW_PER_RAM: usize = 4;
/// The largest window.
pub const WINDOW_MAX_BYTES: usize = 256 << 20;
/// What the pager keeps of a page of the window: its frame number, its page, links and flags, a part of the hash table.
pub const WINDOW_BYTES_PER_PAGE: usize = 32;

/// Slots that a device cannot do without: its rings, and a piece of a request.
pub const SLOTS_PER_DEVICE_MIN: usize = 32;
/// Pages that a guest gave back are unmapped in portions of so many, between which others are served.
pub const STALE_PORTION: usize = 256;

/// Pages that an earlier life of this kernel left mapped are unmapped in portions of so many, a turn of the loop.
pub const LEFT_OVER_PORTION: usize = 8;

/// Heap that pins leave free. A guest's demands are refused, never the kernel's.
pub const HEAP_RESERVE_BYTES: usize = 48 << 10;

/// Pages that one pin may hold. Device models pin larger requests in pieces.
pub const PAGES_PER_PIN: usize = 1024;

/// Page tables of all views together. Two guests whose pages in the window lie in a dozen blocks of 2 MiB each.
pub const VIEW_TABLES: usize = 32;
/// Pages that a fault in a view of descriptor tables maps by one hypercall: an aligned block of so many, a power of two. The
/// tables lie anywhere, and where neighbours are not used, 16 pages a fault cost eleven times as much as one, against a
/// quarter less where all are (`cargo xtask bench mapping`, workloads A and C).
pub const VIEW_FAULT_AROUND: usize = 1;

/// How long the idle loop looks for more work before it sleeps, giving the processor away at each turn. An answer
/// often brings the next request at once, and a look costs less than a kick, or than sleeping and being woken.
pub const POLL_NS: u64 = 60_000;
/// As how much of that one look counts at most: what it may take us, and no time that others had the processor for after it.
pub const LOOK_NS: u64 = 5_000;
/// How much time may pass meanwhile, whoever has had the processor. Less than a scheduler lets a guest have it in one go.
pub const POLL_ELAPSED_NS: u64 = 1_000_000;
/// Turns in a row that answer vCPUs and look for nothing else. A guest that was interrupted reads the status of the interrupt
/// and acknowledges it; then it may have more for us to do.
pub const SHORT_TURNS: u32 = 2;

/// While a device has something to do, the loop looks at it so often even if no interrupt comes.
pub const LOOK_AGAIN_NS: u64 = 100_000_000;

/// Devices that outlive a restart of the kernel: so many, ...
pub const HANDOVER_DEVICES_MIN: usize = 48;
/// ... or one for so many pages of our RAM, ...
pub const HANDOVER_PAGES_PER_DEVICE: usize = 64;
/// ... but no more than so many.
pub const HANDOVER_DEVICES_MAX: usize = 4096;
/// Volumes in RAM that do.
pub const HANDOVER_VOLUMES: usize = 64;
