using System.Net;
using System.Net.Sockets;

namespace VTunnel.Routing;

/// <summary>Tells addresses that a visitor from elsewhere has no business with: the machine's own and those of its cloud.</summary>
internal static class AddressGuard
{
    private static readonly (IPNetwork Network, string What)[] Guarded =
    [
        (IPNetwork.Parse("0.0.0.0/8"), "this machine itself"),
        (IPNetwork.Parse("127.0.0.0/8"), "this machine itself"),
        (IPNetwork.Parse("169.254.0.0/16"), "a link-local address"),
        (IPNetwork.Parse("100.100.100.200/32"), "a metadata service"),
        (IPNetwork.Parse("168.63.129.16/32"), "a metadata service"),
        (IPNetwork.Parse("192.0.0.192/32"), "a metadata service"),
        (IPNetwork.Parse("224.0.0.0/4"), "a multicast address"),
        (IPNetwork.Parse("255.255.255.255/32"), "a broadcast address"),
        (IPNetwork.Parse("::/128"), "this machine itself"),
        (IPNetwork.Parse("::1/128"), "this machine itself"),
        (IPNetwork.Parse("fe80::/10"), "a link-local address"),
        (IPNetwork.Parse("fd00:ec2::/32"), "a metadata service"),
        (IPNetwork.Parse("fd20:ce::254/128"), "a metadata service"),
        (IPNetwork.Parse("ff00::/8"), "a multicast address"),
    ];

    // Ways to write an IPv4 address inside an IPv6 one, which gateways turn back: IPv4-compatible, NAT64 (well-known and local-use),
    // IPv4-translated, 6to4.
    private static readonly (IPNetwork Network, int At)[] Embedding =
    [
        (IPNetwork.Parse("::/96"), 12),
        (IPNetwork.Parse("64:ff9b::/96"), 12),
        (IPNetwork.Parse("64:ff9b:1::/48"), 12),
        (IPNetwork.Parse("::ffff:0:0:0/96"), 12),
        (IPNetwork.Parse("2002::/16"), 2),
    ];

    /// <summary>What a guarded address is, in words; null if the address may be connected to.</summary>
    public static string? Reason(IPAddress address)
    {
        if (address.IsIPv4MappedToIPv6)
            address = address.MapToIPv4();
        foreach (var (network, what) in Guarded)
        {
            if (network.BaseAddress.AddressFamily == address.AddressFamily && network.Contains(address))
                return what;
        }

        if (address.AddressFamily != AddressFamily.InterNetworkV6)
            return null;
        foreach (var (network, at) in Embedding)
        {
            if (network.Contains(address))
                return Reason(new IPAddress(address.GetAddressBytes().AsSpan(at, 4)));
        }

        return null;
    }
}
