use super::*;

const VNI: Vni = Vni::new(5001).expect("it has 24 bits");
const RECEIVER: Vlan = Vlan::new(77).expect("it is a tag");

/// What packets of a VAP have, one of which is to be told from the others by its ports.
fn key(ports: u32) -> FlowKey {
    let mut link = [2; 16];
    link[12..].copy_from_slice(&[0x81, 0, 0, 9]);
    let service = Service {
        protocol: 17,
        ports,
        addresses: Addresses::V4(0x0a00_0001_0a00_0002),
    };
    FlowKey::of_vap(&link, service)
}

/// How many strays there are, of whom just their homes know.
fn strays(cache: &FlowCache) -> usize {
    let mut strays = 0;
    for (at, entry) in cache.entries.iter().enumerate() {
        let home = Home(at as u32);
        for (step, place) in FlowCache::places(home).enumerate() {
            let other = &cache.entries[place];
            let is_stray = step != 0 && !other.is_free() && cache.home(&other.key) == home;
            assert_eq!(entry.brief.has_stray(step), is_stray, "{at}, {place}");
            strays += usize::from(is_stray);
        }
        assert_eq!(
            cache.prefetch_strays(home),
            (1..WAYS).any(|step| entry.brief.has_stray(step))
        );
    }
    strays
}

#[test]
fn a_home_knows_its_strays() {
    let mut cache = FlowCache::new(64, 7);
    let across = Path::new(VNI, Exit::Vap(RECEIVER));
    let mut most = 0;
    for number in 0..2000 {
        let now = Nanos(u64::from(number) << TICK);
        // Some come again, and each has two verdicts in turn.
        let (key, is_across) = (key(number * 7 % 300), number % 3 != 0);
        let dscp = (!is_across).then_some(8);
        cache.insert(key, across.marking(dscp), 1, now);
        let home = cache.home(&key);
        let at = cache.find(home, &key, 1, now).unwrap();
        let brief = cache.entries[at.0 as usize].brief;
        assert_eq!(brief.across(), is_across.then_some(RECEIVER));
        most = most.max(strays(&cache));
    }
    assert!(most > 10, "{most}");
}

#[test]
fn what_is_at_home_says_whether_that_is_all() {
    let mut cache = FlowCache::new(64, 7);
    let across = Path::new(VNI, Exit::Vap(RECEIVER));
    let (key, now) = (key(1), Nanos(0));
    let home = cache.home(&key);
    assert_eq!(cache.find_home(home, &key, 1, now), Found::Nothing);
    cache.insert(key, across, 1, now);
    let found = cache.find_home(home, &key, 1, now);
    assert_eq!(found, Found::Across(RECEIVER));
    assert_eq!(cache.find_home(home, &key, 2, now), Found::Old);
    cache.insert(key, across.marking(Some(8)), 2, now);
    assert_eq!(cache.find_home(home, &key, 2, now), Found::Home);
}
