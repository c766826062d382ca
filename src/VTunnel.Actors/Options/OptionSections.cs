using System.Net;
using System.Net.Sockets;
using Microsoft.Extensions.Configuration;
using VTunnel.Routing;

namespace VTunnel.Options;

/// <summary>How options stand in configuration: every property under its name, in the forms of the command line and the token file.</summary>
internal static class OptionSections
{
    private const int HashBytes = 32;

    /// <summary>Reads what stands in <paramref name="section"/>; the rest stays as it is.</summary>
    /// <exception cref="Microsoft.Extensions.Options.OptionsValidationException">Some of it is not understood; every fault is named.</exception>
    public static void Read(IConfiguration section, TunnelServerOptions options) => SectionReader.Read<TunnelServerOptions>(section, keys =>
    {
        keys.Text<IPAddress>(nameof(options.ListenAddress), Address, value => options.ListenAddress = value);
        keys.Name<ProtocolPreference>(nameof(options.Protocol), value => options.Protocol = value);
        keys.Duration(nameof(options.IdleTimeout), value => options.IdleTimeout = value);
        keys.Duration(nameof(options.ProbeTimeout), value => options.ProbeTimeout = value);
        keys.Duration(nameof(options.HandshakeTimeout), value => options.HandshakeTimeout = value);
        keys.Duration(nameof(options.DrainTimeout), value => options.DrainTimeout = value);
        keys.Duration(nameof(options.ListenRetryTimeout), value => options.ListenRetryTimeout = value);
        keys.Number(nameof(options.MaxMessageBytes), value => options.MaxMessageBytes = value);
        keys.Number(nameof(options.StreamBufferBytes), value => options.StreamBufferBytes = value);
        keys.Duration(nameof(options.ResumeWindow), value => options.ResumeWindow = value);
        keys.Number(nameof(options.MaxStreamWindowBytes), value => options.MaxStreamWindowBytes = value);
        keys.Number(nameof(options.MaxSessionWindowBytes), value => options.MaxSessionWindowBytes = value);
        keys.Number(nameof(options.MaxSessions), value => options.MaxSessions = value);
        keys.Number(nameof(options.MaxListenersPerSession), value => options.MaxListenersPerSession = value);
        keys.Number(nameof(options.MaxStreamsPerSession), value => options.MaxStreamsPerSession = value);
        keys.Objects<AccessToken>(nameof(options.Tokens), value => options.Tokens = value, Token);
        keys.Texts<string>(nameof(options.AllowedOrigins), SectionReader.Right, value => options.AllowedOrigins = value);
        keys.Section(nameof(options.Proxy), proxy => Declare(proxy, options.Proxy ??= new ProxyOptions()));
    });

    /// <inheritdoc cref="Read(IConfiguration, TunnelServerOptions)"/>
    public static void Read(IConfiguration section, TunnelClientOptions options) => SectionReader.Read<TunnelClientOptions>(section, keys =>
    {
        keys.Text<Uri>(nameof(options.Server), Url, value => options.Server = value);
        keys.Objects<ForwardRule>(nameof(options.Forwards), value => options.Forwards = value, ForwardWithHeaders, Forward);
        keys.Headers(nameof(options.Headers), value => options.Headers = value);
        keys.Text<Secret>(nameof(options.Token), Hidden, value => options.Token = value, isSecret: true);
        keys.Name<ProtocolPreference>(nameof(options.Protocol), value => options.Protocol = value);
        keys.Duration(nameof(options.PingInterval), value => options.PingInterval = value);
        keys.Flag(nameof(options.AutoReconnect), value => options.AutoReconnect = value);
        keys.Duration(nameof(options.ReconnectMin), value => options.ReconnectMin = value);
        keys.Duration(nameof(options.ReconnectMax), value => options.ReconnectMax = value);
        keys.Duration(nameof(options.StableAfter), value => options.StableAfter = value);
        keys.Duration(nameof(options.ConnectTimeout), value => options.ConnectTimeout = value);
        keys.Duration(nameof(options.TargetConnectTimeout), value => options.TargetConnectTimeout = value);
        keys.Duration(nameof(options.DrainTimeout), value => options.DrainTimeout = value);
        keys.Number(nameof(options.MaxMessageBytes), value => options.MaxMessageBytes = value);
        keys.Number(nameof(options.StreamBufferBytes), value => options.StreamBufferBytes = value);
        keys.Duration(nameof(options.ResumeWindow), value => options.ResumeWindow = value);
        keys.Number(nameof(options.MaxStreamWindowBytes), value => options.MaxStreamWindowBytes = value);
        keys.Number(nameof(options.MaxSessionWindowBytes), value => options.MaxSessionWindowBytes = value);
        keys.Number(nameof(options.MaxStreams), value => options.MaxStreams = value);
        keys.Section(nameof(options.ServerTls), tls => Declare(tls, options.ServerTls ??= new TlsTrustOptions()));
        keys.Section(nameof(options.TargetTls), tls => Declare(tls, options.TargetTls ??= new TlsTrustOptions()));
    });

    private static void Declare(SectionReader keys, TlsTrustOptions options)
    {
        keys.Text<string>(nameof(options.CertificateAuthorityFile), SectionReader.Right, value => options.CertificateAuthorityFile = value);
        keys.Flag(nameof(options.Insecure), value => options.Insecure = value);
    }

    private static void Declare(SectionReader keys, ProxyOptions options)
    {
        keys.Number(nameof(options.Port), value => options.Port = value);
        keys.Text<IPAddress>(nameof(options.Address), Address, value => options.Address = value);
        keys.Texts<ProxyCredential>(nameof(options.Credentials), Credential, value => options.Credentials = value, isSecret: true);
        keys.Flag(nameof(options.Open), value => options.Open = value);
        keys.Flag(nameof(options.AllowDirect), value => options.AllowDirect = value);
        keys.Texts<HostPattern>(nameof(options.Allowed), Pattern, value => options.Allowed = value);
        keys.Texts<HostAddress>(nameof(options.Addresses), AddressOfHost, value => options.Addresses = value);
        keys.OnlyInCode(nameof(options.InterceptionAuthority));
        keys.OnlyInCode(nameof(options.Certificate));
        keys.OnlyInCode(nameof(options.CertificateChain));
        keys.OnlyInCode(nameof(options.CertificateSelector));
        keys.Duration(nameof(options.HeaderTimeout), value => options.HeaderTimeout = value);
        keys.Duration(nameof(options.KeepAliveTimeout), value => options.KeepAliveTimeout = value);
        keys.Duration(nameof(options.ConnectTimeout), value => options.ConnectTimeout = value);
        keys.Number(nameof(options.MaxConnections), value => options.MaxConnections = value);
    }

    /// <summary>As in a token file; the ports may stand in one text as well.</summary>
    private static Func<(AccessToken? Item, string? Problem)> Token(SectionReader keys)
    {
        string? name = null;
        byte[]? hash = null;
        IReadOnlyList<PortRange> ports = [];
        keys.Text<string>(nameof(AccessToken.Name), SectionReader.Right, value => name = value);
        keys.Text<byte[]>(nameof(AccessToken.Sha256), Hash, value => hash = value, isSecret: true);
        keys.TextOrTexts<IReadOnlyList<PortRange>>(nameof(AccessToken.Ports), Ports, value => ports = [.. value.SelectMany(ranges => ranges)]);
        return () => name is null || hash is null
            ? (null, "a token needs a Name and its Sha256")
            : (new AccessToken(name, hash, ports), null);
    }

    private static Func<(ForwardRule? Item, string? Problem)> ForwardWithHeaders(SectionReader keys)
    {
        ForwardRule? rule = null;
        IReadOnlyList<InjectedHeader> headers = [];
        keys.Text<ForwardRule>("Forward", Forward, value => rule = value);
        keys.Headers(nameof(ForwardRule.Headers), value => headers = [.. value.Select(header => new InjectedHeader(header.Key, header.Value))]);
        return () => rule is null ? (null, "a forward with headers needs its Forward, such as 9000=localhost:3000") : (rule with { Headers = headers }, null);
    }

    private static byte[]? Hash(string text, out string? problem)
    {
        problem = null;
        if (text.Length == 2 * HashBytes && text.All(char.IsAsciiHexDigit))
            return Convert.FromHexString(text);
        var hash = new byte[HashBytes];
        if (Convert.TryFromBase64String(text, hash, out var length) && length == HashBytes)
            return hash;
        problem = $"must be a SHA-256, in {2 * HashBytes} hexadecimal digits or in base64";
        return null;
    }

    private static IReadOnlyList<PortRange>? Ports(string text, out string? problem) => PortRanges.TryParse(text, out var ranges, out problem) ? ranges : null;

    private static ForwardRule? Forward(string text, out string? problem) => ForwardRule.TryParse(text, out var rule, out problem) ? rule : null;

    private static HostPattern? Pattern(string text, out string? problem) => HostPattern.TryParse(text, out var pattern, out problem) ? pattern : null;

    private static Secret Hidden(string text, out string? problem)
    {
        problem = null;
        return new Secret(text);
    }

    private static Uri? Url(string text, out string? problem)
    {
        problem = Uri.TryCreate(text, UriKind.Absolute, out var url) ? null : "must be a URL, such as wss://tunnel.example.com/";
        return url;
    }

    private static IPAddress? Address(string text, out string? problem)
    {
        // The short forms of IPv4 mean something else to most people: 1 is 0.0.0.1.
        var isAddress = IPAddress.TryParse(text, out var address) && (address.AddressFamily == AddressFamily.InterNetworkV6 || address.ToString() == text);
        problem = isAddress ? null : "must be an IP address, such as 127.0.0.1 or ::1";
        return isAddress ? address : null;
    }

    private static ProxyCredential? Credential(string text, out string? problem)
    {
        var colon = text.IndexOf(':', StringComparison.Ordinal);
        var isCredential = colon > 0 && colon < text.Length - 1;
        problem = isCredential ? null : "write USER:PASSWORD";
        return isCredential ? new ProxyCredential(text[..colon], new Secret(text[(colon + 1)..])) : null;
    }

    private static HostAddress? AddressOfHost(string text, out string? problem)
    {
        var equals = text.IndexOf('=', StringComparison.Ordinal);
        problem = null;
        if (equals > 0 && HostName.TryNormalize(text[..equals].Trim(), out var host) && Address(text[(equals + 1)..].Trim(), out _) is { } address)
            return new HostAddress(host, address);
        problem = "write HOST=ADDRESS, such as api.test=127.0.0.1";
        return null;
    }
}
