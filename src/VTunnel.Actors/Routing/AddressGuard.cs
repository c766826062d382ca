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

    // Ways to write an IPv4 address inside an IPv6 one, which gateways turn back: IPv4-compatible, NAT64, IPv4-translated, 6to4.
    private static readonly (IPNetwork Network, int[] At)[] Embedding =
    [
        (IPNetwork.Parse("::/96"), [12, 13, 14, 15]),
        (IPNetwork.Parse("64:ff9b::/96"), [12, 13, 14, 15]),
        (IPNetwork.Parse("::ffff:0:0:0/96"), [12, 13, 14, 15]),
        (IPNetwork.Parse("2002::/16"), [2, 3, 4, 5]),
    ];

    // NAT64 for local use (RFC 8215). Where the address stands depends on the length of the prefix that a network has chosen in it, which
    // cannot be told from here: 48, 56, 64 or 96 bits, by RFC 6052, section 2.2.
    private static readonly IPNetwork LocalTranslation = IPNetwork.Parse("64:ff9b:1::/48");
    private static readonly int[][] LocalTranslationAt = [[6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12], [12, 13, 14, 15]];

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
                return Reason(Embedded(address, at));
        }

        return LocalTranslation.Contains(address) ? LocalTranslationReason(address) : null;
    }

    /// <summary>What any of the addresses is that it may stand for. Zeros say nothing: they are what is left free in the other forms.</summary>
    private static string? LocalTranslationReason(IPAddress address)
    {
        var embedded = LocalTranslationAt.Select(at => Embedded(address, at)).ToList();
        var meant = embedded.Where(each => each.GetAddressBytes()[0] != 0).ToList();
        return (meant.Count > 0 ? meant : embedded).Select(Reason).FirstOrDefault(reason => reason is not null);
    }

    private static IPAddress Embedded(IPAddress address, int[] at)
    {
        var bytes = address.GetAddressBytes();
        return new IPAddress([bytes[at[0]], bytes[at[1]], bytes[at[2]], bytes[at[3]]]);
    }
}
