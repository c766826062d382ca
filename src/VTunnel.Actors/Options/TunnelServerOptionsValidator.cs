using Microsoft.Extensions.Options;

namespace VTunnel.Options;

/// <summary>Checks <see cref="TunnelServerOptions"/> and tells everything that is wrong at once.</summary>
public sealed class TunnelServerOptionsValidator : IValidateOptions<TunnelServerOptions>
{
    private const int MinMessageBytes = 64 * 1024;
    private const int MaxMessageBytes = 64 * 1024 * 1024;
    private const int MaxBufferBytes = 1024 * 1024 * 1024;
    private const int MinStreamWindowBytes = 256 * 1024;
    private const int MinSessionWindowBytes = 1024 * 1024;

    /// <inheritdoc />
    public ValidateOptionsResult Validate(string? name, TunnelServerOptions options)
    {
        var faults = Check(options);
        return faults.Count == 0
            ? ValidateOptionsResult.Success
            : ValidateOptionsResult.Fail(faults.Select(fault => $"{nameof(TunnelServerOptions)}.{fault}"));
    }

    /// <summary>Everything that is wrong with <paramref name="options"/>; empty when nothing is.</summary>
    public static IReadOnlyList<OptionFault> Check(TunnelServerOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        var faults = new OptionFaults();

        if (options.ListenAddress is null)
            faults.Add(nameof(options.ListenAddress), null, "an IP address is needed, such as 127.0.0.1");
        faults.Defined(nameof(options.Protocol), options.Protocol);
        if (options.IdleTimeout != Timeout.InfiniteTimeSpan)
            faults.Positive(nameof(options.IdleTimeout), options.IdleTimeout, ", or infinite (0 on the command line)");
        faults.Positive(nameof(options.ProbeTimeout), options.ProbeTimeout);
        faults.Positive(nameof(options.HandshakeTimeout), options.HandshakeTimeout);
        faults.NotNegative(nameof(options.DrainTimeout), options.DrainTimeout);
        faults.NotNegative(nameof(options.ListenRetryTimeout), options.ListenRetryTimeout);
        faults.Range(nameof(options.MaxMessageBytes), options.MaxMessageBytes, MinMessageBytes, MaxMessageBytes, " bytes");
        faults.Range(nameof(options.StreamBufferBytes), options.StreamBufferBytes, MinMessageBytes, MaxBufferBytes, " bytes");
        faults.NotNegative(nameof(options.ResumeWindow), options.ResumeWindow);
        faults.Range(nameof(options.MaxStreamWindowBytes), options.MaxStreamWindowBytes, MinStreamWindowBytes, MaxBufferBytes, " bytes");
        faults.Range(nameof(options.MaxSessionWindowBytes), options.MaxSessionWindowBytes, MinSessionWindowBytes, MaxBufferBytes, " bytes");
        faults.Range(nameof(options.MaxSessions), options.MaxSessions, 1, int.MaxValue);
        faults.Range(nameof(options.MaxListenersPerSession), options.MaxListenersPerSession, 1, 65535);
        faults.Range(nameof(options.MaxStreamsPerSession), options.MaxStreamsPerSession, 1, int.MaxValue);
        CheckTokens(options.Tokens, faults);

        if (options.AllowedOrigins is null)
            faults.Add(nameof(options.AllowedOrigins), null, "a list is needed; it may be empty");
        foreach (var origin in options.AllowedOrigins ?? [])
        {
            if (OptionRules.OriginProblem(origin) is { } problem)
                faults.Add(nameof(options.AllowedOrigins), origin, problem);
        }

        if (options.Proxy is { } proxy)
            CheckProxy(proxy, faults);
        return faults;
    }

    private static void CheckProxy(ProxyOptions proxy, OptionFaults faults)
    {
        string Key(string name) => $"{nameof(TunnelServerOptions.Proxy)}.{name}";
        faults.Range(Key(nameof(proxy.Port)), proxy.Port, 0, 65535);
        faults.Positive(Key(nameof(proxy.HeaderTimeout)), proxy.HeaderTimeout);
        faults.Positive(Key(nameof(proxy.KeepAliveTimeout)), proxy.KeepAliveTimeout);
        faults.Positive(Key(nameof(proxy.ConnectTimeout)), proxy.ConnectTimeout);
        faults.Range(Key(nameof(proxy.MaxConnections)), proxy.MaxConnections, 1, int.MaxValue);
        if (proxy.Address is null)
        {
            faults.Add(Key(nameof(proxy.Address)), null, "an IP address is needed, such as 127.0.0.1");
        }
        else if (!System.Net.IPAddress.IsLoopback(proxy.Address) && proxy.Credentials is null or { Count: 0 } && !proxy.Open)
        {
            faults.Add(Key(nameof(proxy.Address)), proxy.Address.ToString(),
                "anyone who reaches this address could use the proxy; ask for a password (--proxy-auth USER:PASSWORD), or say that this is meant (--proxy-open)");
        }

        CheckEach(Key(nameof(proxy.Credentials)), proxy.Credentials, faults, static credential => (null, CredentialProblem(credential)));
        CheckEach(Key(nameof(proxy.Allowed)), proxy.Allowed, faults, static pattern => (pattern.Name is null ? null : pattern.ToString(), OptionRules.PatternProblem(pattern)));
        CheckEach(Key(nameof(proxy.Addresses)), proxy.Addresses, faults, static host => (
            host.ToString(),
            host.Address is null ? "the address is missing; give one, such as 10.0.0.5" : OptionRules.NameProblem(host.Host, mayBeAddress: false)));
        if (proxy.CertificateChain is null)
            faults.Add(Key(nameof(proxy.CertificateChain)), null, "a list is needed; it may be empty");

        if (proxy.InterceptionAuthority is { } authority)
        {
            if (!authority.HasPrivateKey)
                faults.Add(Key(nameof(proxy.InterceptionAuthority)), null, "the authority's private key is needed to sign certificates");
            if (authority.Extensions.OfType<System.Security.Cryptography.X509Certificates.X509BasicConstraintsExtension>().FirstOrDefault() is not { CertificateAuthority: true })
                faults.Add(Key(nameof(proxy.InterceptionAuthority)), null, "this certificate is not one of an authority; make one with 'vtunnel ca create'");
            if (authority.NotAfter.ToUniversalTime() < TimeProvider.System.GetUtcNow())
                faults.Add(Key(nameof(proxy.InterceptionAuthority)), null, $"the authority expired on {authority.NotAfter.ToUniversalTime():yyyy-MM-dd}; make another with 'vtunnel ca create'");
        }
    }

    private static void CheckEach<T>(string key, IReadOnlyList<T?>? items, OptionFaults faults, Func<T, (string? Shown, string? Problem)> check)
        where T : class
    {
        if (items is null)
            faults.Add(key, null, "a list is needed; it may be empty");
        foreach (var item in items ?? [])
        {
            if (item is null)
                faults.Add(key, null, "one of the list is null; leave it out");
            else if (check(item) is { Problem: { } problem } found)
                faults.Add(key, found.Shown, problem);
        }
    }

    /// <summary>The first colon parts the two where they are sent (RFC 7617, section 2).</summary>
    private static string? CredentialProblem(ProxyCredential credential)
    {
        if (string.IsNullOrEmpty(credential.User))
            return "a user of the proxy has no name";
        if (credential.User.Contains(':', StringComparison.Ordinal))
            return $"the user's name '{credential.User.Split(':')[0]}:…' has a colon; it ends where the password begins";
        return credential.Password?.Value is null ? $"the user '{credential.User}' has no password" : null;
    }

    private static void CheckTokens(IReadOnlyList<AccessToken>? tokens, OptionFaults faults)
    {
        const string key = nameof(TunnelServerOptions.Tokens);
        if (tokens is null)
        {
            faults.Add(key, null, "a list is needed; it may be empty");
            return;
        }

        var names = new HashSet<string>(StringComparer.Ordinal);
        var hashes = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var token in tokens)
        {
            if (token is null)
            {
                faults.Add(key, null, "a token is null; leave it out");
                continue;
            }

            if (string.IsNullOrWhiteSpace(token.Name))
                faults.Add(key, null, "a token has no name; give each a name of its own for the log");
            else if (!names.Add(token.Name))
                faults.Add(key, token.Name, "this name is given to two tokens; give each a name of its own");

            if (token.Sha256.Length != 32)
                faults.Add(key, token.Name, $"the hash has {token.Sha256.Length} bytes; a SHA-256 has 32");
            else if (!hashes.TryAdd(Convert.ToHexString(token.Sha256.Span), token.Name))
                faults.Add(key, token.Name, $"the same token as '{hashes[Convert.ToHexString(token.Sha256.Span)]}'; leave one out");

            if (token.Ports is null)
                faults.Add(key, token.Name, "a list of ports is needed; an empty one means every port");
            foreach (var range in token.Ports ?? [])
            {
                if (range.First < 1 || range.Last > 65535 || range.First > range.Last)
                    faults.Add(key, token.Name, $"the ports {range} are not a range within 1 to 65535");
            }
        }
    }
}
