//! The addresses that no dial reaches unless a rule names them: what would lead back into the agent's own host, or to
//! the credentials of the machine it runs on.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Why an address is special.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Special {
    /// The agent's own host (RFC 1122 section 3.2.1.3, RFC 4291 section 2.5.3).
    Loopback,
    /// "This host"; the kernel takes it for loopback.
    Unspecified,
    /// Hosts on the agent's own link (RFC 3927, RFC 4291 section 2.5.6).
    LinkLocal,
    /// A cloud's service that hands out the credentials of the machine or pod that asks.
    Metadata,
    /// No TCP service can be there (RFC 5771, RFC 4291 section 2.7).
    Multicast,
    /// No TCP service can be there (RFC 919).
    Broadcast,
    /// Where a translator of the spoke's own sends it, nobody else knows (RFC 8215): the IPv4 address may stand anywhere in it
    /// (RFC 6052 section 2.2), and may be any of the above.
    Translated,
}

/// The single addresses of [`Special::Metadata`], each with who documents it. They come before the ranges they lie in:
/// opening 169.254.0.0/16 does not open the metadata service in it.
const METADATA: [IpAddr; 14] = [
    // AWS EC2, Azure, Google Cloud, OCI, DigitalOcean, Hetzner, OpenStack: the instance metadata service.
    v4([169, 254, 169, 254]),
    // AWS ECS: task metadata and credentials; EKS: Pod Identity Agent.
    v4([169, 254, 170, 2]),
    v4([169, 254, 170, 23]),
    // Tencent Cloud: metadata.tencentyun.com.
    v4([169, 254, 0, 23]),
    // Scaleway: cloud-init's Scaleway data source.
    v4([169, 254, 42, 42]),
    // Alibaba Cloud ECS.
    v4([100, 100, 100, 200]),
    // Oracle Cloud Classic.
    v4([192, 0, 0, 192]),
    // Azure: WireServer, which hands extensions their settings and certificates.
    v4([168, 63, 129, 16]),
    // AWS EC2 over IPv6; EKS Pod Identity Agent over IPv6.
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]),
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23]),
    // Google Cloud, instances with IPv6 only.
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]),
    // OCI over IPv6.
    v6([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe]),
    // Scaleway over IPv6.
    v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42]),
    // OpenStack Nova over IPv6.
    v6([0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe]),
];

/// The ranges, disjoint.
const RANGES: [(Special, IpNet); 9] = [
    (Special::Loopback, v4_net([127, 0, 0, 0], 8)),
    (Special::Loopback, v6_net([0, 0, 0, 0, 0, 0, 0, 1], 128)),
    // RFC 1122 section 3.2.1.3 (a): all of 0.0.0.0/8 is "this host on this network".
    (Special::Unspecified, v4_net([0, 0, 0, 0], 8)),
    (Special::Unspecified, v6_net([0; 8], 128)),
    (Special::LinkLocal, v4_net([169, 254, 0, 0], 16)),
    (Special::LinkLocal, v6_net([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10)),
    (Special::Multicast, v4_net([224, 0, 0, 0], 4)),
    (Special::Multicast, v6_net([0xff00, 0, 0, 0, 0, 0, 0, 0], 8)),
    (Special::Translated, v6_net([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48)),
];

/// What is special about `address`, and the smallest range that makes it so. `address` must be [`judged`].
pub(crate) fn special(address: IpAddr) -> Option<(Special, IpNet)> {
    if METADATA.contains(&address) {
        return Some((Special::Metadata, address.into()));
    }
    if address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Some((Special::Broadcast, address.into()));
    }
    RANGES.into_iter().find(|(_, range)| range.contains(&address))
}

/// The address that `address` stands for: an IPv6 address that carries an IPv4 address leads to the latter, through
/// this host's own stack or through a translator that the spoke may have.
pub(crate) fn judged(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => embedded(v6).map_or(address, IpAddr::V4),
    }
}

fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        // :: and ::1 are addresses of their own (RFC 4291 section 2.5.5.1).
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        // IPv4-compatible (RFC 4291), IPv4-mapped (RFC 4291), IPv4-translated (RFC 2765).
        [0, 0, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0, 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low]
        // NAT64, the well-known prefix (RFC 6052).
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        // 6to4 (RFC 3056).
        | [0x2002, high, low, ..] => Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))),
        _ => None,
    }
}

impl fmt::Display for Special {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "a loopback address of the agent's own host",
            Self::Unspecified => "an unspecified address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "a cloud metadata address",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "the broadcast address",
            Self::Translated => "an address of the spoke's own NAT64",
        })
    }
}

const fn v4(octets: [u8; 4]) -> IpAddr {
    let [a, b, c, d] = octets;
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(segments: [u16; 8]) -> IpAddr {
    let [a, b, c, d, e, f, g, h] = segments;
    IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h))
}

const fn v4_net(octets: [u8; 4], prefix: u8) -> IpNet {
    let [a, b, c, d] = octets;
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix))
}

const fn v6_net(segments: [u16; 8], prefix: u8) -> IpNet {
    let [a, b, c, d, e, f, g, h] = segments;
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind(text: &str) -> Option<Special> {
        special(judged(text.parse().unwrap())).map(|(kind, _)| kind)
    }

    #[test]
    fn every_special_address_is_known() {
        for (kinds, texts) in [
            (Special::Loopback, &["127.0.0.1", "127.255.255.254", "::1"][..]),
            (Special::Unspecified, &["0.0.0.0", "0.1.2.3", "::"]),
            (Special::LinkLocal, &["169.254.0.1", "169.254.255.255", "fe80::1", "febf:ffff::1"]),
            (
                Special::Metadata,
                &["169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "168.63.129.16"],
            ),
            (Special::Metadata, &["fd00:ec2::254", "fd20:ce::254", "fe80::a9fe:a9fe"]),
            (Special::Multicast, &["224.0.0.1", "239.255.255.255", "ff02::1"]),
            (Special::Broadcast, &["255.255.255.255"]),
            // 169.254.169.254 and 127.0.0.1 behind prefixes of 48, 56, 64 and 96 bits.
            (
                Special::Translated,
                &["64:ff9b:1:a9fe:a9:fe00::", "64:ff9b:1:a9:fe:a9fe::", "64:ff9b:1:0:a9:fea9:fe00:0"],
            ),
            (
                Special::Translated,
                &["64:ff9b:1::169.254.169.254", "64:ff9b:1:7f00:0:100::", "64:ff9b:1:ffff::10.0.0.1"],
            ),
        ] {
            for text in texts {
                assert_eq!(kind(text), Some(kinds), "{text}");
            }
        }
    }

    #[test]
    fn ordinary_addresses_are_not_special() {
        for text in [
            "1.0.0.1",
            "10.0.0.1",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.255.255",
            "169.255.0.0",
            "172.16.0.1",
            "192.168.0.1",
            "223.255.255.255",
            "100.64.0.1",
            "240.0.0.1",
            "2001:db8::1",
            "fd00::1",
            "fec0::1",
            "64:ff9b::a00:1",
            "::ffff:10.0.0.1",
        ] {
            assert_eq!(kind(text), None, "{text}");
        }
    }

    #[test]
    fn an_embedded_ipv4_address_is_judged() {
        for text in ["::ffff:127.0.0.1", "::127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::5"] {
            assert_eq!(judged(text.parse().unwrap()), IpAddr::V4(Ipv4Addr::LOCALHOST), "{text}");
        }
    }

    #[test]
    fn the_ranges_do_not_overlap() {
        for (index, (_, range)) in RANGES.iter().enumerate() {
            for (_, other) in &RANGES[index + 1..] {
                assert!(!range.contains(other) && !other.contains(range), "{range} {other}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_range_holds_the_address(bits: u32) {
            let address = IpAddr::V4(bits.into());
            if let Some((_, range)) = special(address) {
                prop_assert!(range.contains(&address));
            }
        }

        #[test]
        fn judging_twice_changes_nothing(segments: [u16; 8]) {
            let once = judged(IpAddr::V6(segments.into()));
            prop_assert_eq!(judged(once), once);
        }
    }
}
