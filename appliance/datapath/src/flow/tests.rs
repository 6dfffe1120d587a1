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
        let home = Slot(at as u32);
        for (step, place) in FlowCache::places(home).enumerate() {
            let other = &cache.entries[place];
            let is_stray = step != 0 && !other.is_free() && cache.home(&other.key) == home;
            let is_known = entry.brief.strays().any(|known| known == step);
            assert_eq!(is_known, is_stray, "{at}, {place}");
            strays += usize::from(is_stray);
        }
        let any = entry.brief.strays().next().is_some();
        assert_eq!(cache.prefetch_strays(home), any);
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
        let found = match is_across {
            true => Found::Across(RECEIVER),
            false => Found::Good,
        };
        assert_eq!(cache.find_at(at, &key, 1, now), found);
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
    assert_eq!(cache.find_at(home, &key, 1, now), Found::Nothing);
    cache.insert(key, across, 1, now);
    let found = cache.find_at(home, &key, 1, now);
    assert_eq!(found, Found::Across(RECEIVER));
    assert_eq!(cache.find_at(home, &key, 2, now), Found::Old);
    cache.insert(key, across.marking(Some(8)), 2, now);
    assert_eq!(cache.find_at(home, &key, 2, now), Found::Good);
}

#[test]
fn a_quarter_full_nearly_every_flow_has_a_place() {
    let mut cache = FlowCache::new(1 << 14, 7);
    let across = Path::new(VNI, Exit::Vap(RECEIVER));
    let flows = || (0..1 << 12).map(key);
    for key in flows() {
        cache.insert(key, across, 1, Nanos(0));
    }
    let homeless = flows().filter(|key| {
        let home = cache.home(key);
        cache.find(home, key, 1, Nanos(0)).is_none()
    });
    // By chance, one in a thousand.
    let homeless = homeless.count();
    assert!(homeless < 20, "{homeless}");
}

#[test]
fn what_is_unused_for_long_makes_room_at_home() {
    let mut cache = FlowCache::new(WAYS as u32, 7);
    let across = Path::new(VNI, Exit::Vap(RECEIVER));
    for number in 0..100 {
        cache.insert(key(number), across, 1, Nanos(0));
    }
    let after = |ticks: u16| Nanos(u64::from(ticks) << TICK);
    let new = key(200);
    let home = cache.home(&new);
    // The only one of the set that was used since.
    cache.entries[home.0 as usize].brief.use_at(5);
    cache.insert(new, across, 1, after(6));
    assert_eq!(cache.find_at(home, &new, 1, after(6)), Found::Nothing);
    // Half a minute later it gets that place.
    let late = after(6 + LONG);
    let stray = cache.find(home, &new, 1, late).unwrap();
    cache.entries[stray.0 as usize] = Entry::FREE;
    cache.insert(new, across, 1, late);
    assert_eq!(cache.find_at(home, &new, 1, late), Found::Across(RECEIVER));
}

#[test]
fn how_long_a_flow_is_idle_is_told_to_the_second() {
    let mut cache = FlowCache::new(WAYS as u32, 7);
    let across = Path::new(VNI, Exit::Vap(RECEIVER));
    // Ticks have wrapped at the second.
    for begun in [0, 7200 << TICK] {
        cache.insert(key(1), across, 1, Nanos(begun));
        for (later, idle_ms) in [(0, 0), (3 << TICK, 3221), (7000 << TICK, 7_516_192)] {
            let all = cache.in_set(0, Nanos(begun + later));
            let idle: Vec<u32> = all.map(|cached| cached.idle_ms).collect();
            assert_eq!(idle, [idle_ms]);
        }
    }
}
