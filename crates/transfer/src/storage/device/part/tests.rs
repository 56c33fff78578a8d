use super::*;
use std::path::Path;
use std::sync::Arc;

/// A device in memory, of four pages, two of which are ends. Its last page may not be readable.
#[derive(Clone)]
struct InMemory {
    bytes: Arc<Mutex<Vec<u8>>>,
    damaged: bool,
}

impl InMemory {
    fn of_sevens(damaged: bool) -> Self {
        Self { bytes: Arc::new(Mutex::new(vec![7; 4 * PAGE as usize])), damaged }
    }
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap()
    }
}

impl Medium for InMemory {
    fn path(&self) -> &Path {
        Path::new("/dev/memory")
    }
    fn size(&self) -> u64 {
        4 * PAGE
    }
    fn end(&self) -> u64 {
        PAGE
    }
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.bytes()[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
    fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        self.bytes()[offset as usize..][..len as usize].fill(0);
        Ok(())
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if self.damaged && offset >= 3 * PAGE {
            return Err(io::Error::other("damaged"));
        }
        buf.copy_from_slice(&self.bytes()[offset as usize..][..buf.len()]);
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_is_behind_a_stream_stays_even_if_the_stream_breaks_off() {
    const P: usize = PAGE as usize;
    let device = InMemory::of_sevens(false);
    let part = |extent| DevicePart::new(device.clone(), extent, false, DeviceNotes::default()).unwrap();
    let holds = |page: usize| device.bytes()[page * P..][..P].to_vec();
    let grows = Extent { size: P as u64, sealed: false };

    let stream = part(grows);
    stream.write_at(0, &[1; 2 * P]).unwrap();
    assert_eq!([holds(0), holds(1), holds(3)], [[0; P], [1; P], [7; P]], "its first page comes last");
    drop(stream);
    let sealed = part(Extent { size: 2 * P as u64, sealed: true });
    sealed.write_at(0, &[1; 2 * P]).unwrap();
    sealed.commit().unwrap();
    assert_eq!([holds(0), holds(1), holds(2), holds(3)], [[1; P], [1; P], [7; P], [7; P]]);

    // One that comes to the last page has its end there, which must not look whole.
    let long = part(grows);
    long.write_at(2 * P as u64, &[2; 2 * P]).unwrap();
    assert_eq!([holds(0), holds(2), holds(3)], [[0; P], [2; P], [0; P]]);
    long.write_at(0, &[2; 2 * P]).unwrap();
    long.commit().unwrap();
    assert!(device.bytes().iter().all(|&byte| byte == 2));
}

#[test]
fn a_stream_does_not_touch_what_cannot_be_read_behind_it() {
    const P: usize = PAGE as usize;
    let device = InMemory::of_sevens(true);
    let grows = Extent { size: 0, sealed: false };
    let stream = DevicePart::new(device.clone(), grows, false, DeviceNotes::default()).unwrap();
    stream.write_at(0, &[1; 2 * P]).unwrap();
    stream.commit().unwrap();
    assert_eq!(device.bytes()[..], [[1; 2 * P], [7; 2 * P]].concat());
}

#[test]
fn the_ends_take_and_give_what_is_theirs() {
    let begun = Begun { head: false, tail: false };
    let mut ends =
        Ends { head: PageAligned::zeroed(10), tail: PageAligned::zeroed(5), tail_start: 20, begun };
    let object: Vec<u8> = (1..=25).collect();
    // Pieces across both ends, and none that touch neither.
    for (from, to) in [(0, 3), (3, 12), (12, 19), (19, 22), (22, 25)] {
        ends.put(from as u64, &object[from..to]);
    }
    assert_eq!((&*ends.head, &*ends.tail), (&object[..10], &object[20..]));
    let mut buf = vec![0; 25];
    ends.get(0, &mut buf);
    assert_eq!(buf[..10], object[..10]);
    assert_eq!(buf[10..20], [0; 10]);
    assert_eq!(buf[20..], object[20..]);
    let mut buf = vec![0; 6];
    ends.get(8, &mut buf);
    assert_eq!(buf, [9, 10, 0, 0, 0, 0]);
    assert_eq!((overlap(0, 4, 4, 4), overlap(5, 0, 5, 3)), (None, None));
}
