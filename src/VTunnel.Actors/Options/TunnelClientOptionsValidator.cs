using Microsoft.Extensions.Options;
using VTunnel.Routing;

namespace VTunnel.Options;

/// <summary>Checks <see cref="TunnelClientOptions"/> and tells everything that is wrong at once.</summary>
public sealed class TunnelClientOptionsValidator : IValidateOptions<TunnelClientOptions>
{
    private const int MinMessageBytes = 64 * 1024;
    private const int MaxMessageBytes = 64 * 1024 * 1024;
    private const int MaxBufferBytes = 1024 * 1024 * 1024;
    private const int MinStreamWindowBytes = 256 * 1024;
    private const int MinSessionWindowBytes = 1024 * 1024;
    private const string ServerExample = "such as wss://tunnel.example.com/";

    /// <inheritdoc />
    public ValidateOptionsResult Validate(string? name, TunnelClientOptions options)
    {
        var faults = Check(options);
        return faults.Count == 0
            ? ValidateOptionsResult.Success
            : ValidateOptionsResult.Fail(faults.Select(fault => $"{nameof(TunnelClientOptions)}.{fault}"));
    }

    /// <summary>Everything that is wrong with <paramref name="options"/>; empty when nothing is.</summary>
    public static IReadOnlyList<OptionFault> Check(TunnelClientOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        var faults = new OptionFaults();

        CheckServer(options.Server, faults);
        CheckForwards(options.Forwards, faults);
        CheckHeaders(options, faults);
        faults.Defined(nameof(options.Protocol), options.Protocol);
        if (options.PingInterval > OptionFaults.LongestTime)
        {
            faults.Add(nameof(options.PingInterval), DurationText.Format(options.PingInterval),
                $"must be at most {DurationText.Format(OptionFaults.LongestTime)}; a negative one disables the ping");
        }

        CheckReconnect(options, faults);
        faults.NotNegative(nameof(options.StableAfter), options.StableAfter);
        faults.Positive(nameof(options.ConnectTimeout), options.ConnectTimeout);
        faults.Positive(nameof(options.TargetConnectTimeout), options.TargetConnectTimeout);
        faults.NotNegative(nameof(options.DrainTimeout), options.DrainTimeout);
        faults.Range(nameof(options.MaxMessageBytes), options.MaxMessageBytes, MinMessageBytes, MaxMessageBytes, " bytes");
        faults.Range(nameof(options.StreamBufferBytes), options.StreamBufferBytes, MinMessageBytes, MaxBufferBytes, " bytes");
        faults.NotNegative(nameof(options.ResumeWindow), options.ResumeWindow);
        faults.Range(nameof(options.MaxStreamWindowBytes), options.MaxStreamWindowBytes, MinStreamWindowBytes, MaxBufferBytes, " bytes");
        faults.Range(nameof(options.MaxSessionWindowBytes), options.MaxSessionWindowBytes, MinSessionWindowBytes, MaxBufferBytes, " bytes");
        faults.Range(nameof(options.MaxStreams), options.MaxStreams, 1, int.MaxValue);
        CheckTrust(nameof(options.ServerTls), options.ServerTls, faults);
        CheckTrust(nameof(options.TargetTls), options.TargetTls, faults);
        return faults;
    }

    /// <summary>Everything that is wrong with one forward; empty when nothing is.</summary>
    internal static IReadOnlyList<OptionFault> Check(ForwardRule rule)
    {
        var faults = new OptionFaults();
        CheckForwards([rule], faults);
        return faults;
    }

    private static void CheckServer(Uri? server, OptionFaults faults)
    {
        const string key = nameof(TunnelClientOptions.Server);
        if (server is null)
            faults.Add(key, null, $"the URL of the server is needed, {ServerExample}");
        else if (!server.IsAbsoluteUri)
            faults.Add(key, server.ToString(), $"a URL begins with ws:// or wss://, {ServerExample}");
        else if (server.Scheme is not ("ws" or "wss" or "http" or "https"))
            faults.Add(key, Shown(server), $"'{server.Scheme}' is not a scheme of a server; use ws:// or wss://, {ServerExample}");
        else if (server.Host.Length == 0)
            faults.Add(key, Shown(server), $"the URL names no host; write one {ServerExample}");
        else if (server.UserInfo.Length > 0)
            faults.Add(key, Shown(server), "a user name in the URL is not sent; use a token, or a header of your own");
        else if (server.Fragment.Length > 0)
            faults.Add(key, Shown(server), "the part from '#' on is not sent; leave it out");
        else if (server.Port == 0)
            faults.Add(key, Shown(server), "the port must be from 1 to 65535");
    }

    /// <summary>A URL without the parts that people put secrets into.</summary>
    private static string Shown(Uri server) => server.GetComponents(UriComponents.SchemeAndServer | UriComponents.Path, UriFormat.SafeUnescaped);

    private static void CheckForwards(IReadOnlyList<ForwardRule>? forwards, OptionFaults faults)
    {
        const string key = nameof(TunnelClientOptions.Forwards);
        if (forwards is null)
        {
            faults.Add(key, null, "a list is needed; it may be empty");
            return;
        }

        var targets = new Dictionary<string, ForwardTarget>(StringComparer.Ordinal);
        foreach (var rule in forwards)
        {
            if (rule is null)
            {
                faults.Add(key, null, "a forward is null; leave it out");
                continue;
            }

            if (rule.Domain is { Name: null })
            {
                faults.Add(key, null, "a domain has no name; read one with HostPattern.TryParse");
                continue;
            }

            if (rule.Target is not { Host: not null } target)
            {
                faults.Add(key, rule.Source, "the target is missing; give a host and a port, such as localhost:3000");
                continue;
            }

            var kind = rule.Domain is null ? "port" : "domain";
            if (rule.Domain is null && rule.RemotePort is < 1 or > 65535)
                faults.Add(key, rule.ToString(), $"the server's port is {rule.RemotePort}; it must be from 1 to 65535");
            else if (rule.Domain is { } domain && OptionRules.PatternProblem(domain) is { } wrong)
                faults.Add(key, rule.ToString(), wrong);
            else if (!targets.TryAdd(rule.Source, target))
                faults.Add(key, rule.ToString(), $"{kind} {rule.Source} already leads to {targets[rule.Source]}; give each {kind} one target");

            CheckHeaders(rule, faults);
            if (!Enum.IsDefined(target.Scheme))
                faults.Add(key, rule.ToString(), $"the scheme is {target.Scheme}; it must be one of {string.Join(", ", Enum.GetNames<TargetScheme>())}");
            if (target.Port is < 1 or > 65535)
                faults.Add(key, rule.ToString(), $"the target's port is {target.Port}; it must be from 1 to 65535");
            if (!ForwardParser.IsHost(target.Host, out var problem))
                faults.Add(key, rule.ToString(), problem);
        }
    }

    private static void CheckHeaders(ForwardRule rule, OptionFaults faults)
    {
        const string key = nameof(TunnelClientOptions.Forwards);
        if (rule.Headers is null)
            faults.Add(key, rule.ToString(), "a list of headers is needed; it may be empty");
        foreach (var header in rule.Headers ?? [])
        {
            if (header is null)
                faults.Add(key, rule.ToString(), "a header is null; leave it out");
            else if (OptionRules.InjectedHeaderProblem(header.Name, header.Value) is { } reason)
                faults.Add(key, $"{rule} -H {header.Name}", reason);
        }
    }

    private static void CheckHeaders(TunnelClientOptions options, OptionFaults faults)
    {
        const string key = nameof(TunnelClientOptions.Headers);
        if (options.Headers is null)
            faults.Add(key, null, "a list is needed; it may be empty");
        foreach (var (name, value) in options.Headers ?? [])
        {
            if (OptionRules.HeaderProblem(name, value) is { } problem)
                faults.Add(key, name, problem);
            else if (options.Token is not null && name.Equals("Authorization", StringComparison.OrdinalIgnoreCase))
                faults.Add(key, name, "the token is sent in this header; give the token or the header, not both");
        }

        if (options.Token is { } token && (token.Value is null || !OptionRules.IsToken(token.Value)))
            faults.Add(nameof(options.Token), null, OptionRules.TokenForm);
    }

    private static void CheckReconnect(TunnelClientOptions options, OptionFaults faults)
    {
        var before = faults.Count;
        faults.Positive(nameof(options.ReconnectMin), options.ReconnectMin);
        faults.Positive(nameof(options.ReconnectMax), options.ReconnectMax);
        if (faults.Count == before && options.ReconnectMin > options.ReconnectMax)
        {
            faults.Add(nameof(options.ReconnectMin), DurationText.Format(options.ReconnectMin),
                $"the shortest wait before reconnecting must be at most the longest, which is {DurationText.Format(options.ReconnectMax)}");
        }
    }

    private static void CheckTrust(string key, TlsTrustOptions? trust, OptionFaults faults)
    {
        if (trust is null)
        {
            faults.Add(key, null, "must not be null");
            return;
        }

        if (trust.CertificateAuthorityFile is not { } file)
            return;

        var fileKey = $"{key}.{nameof(trust.CertificateAuthorityFile)}";
        if (trust.Insecure)
            faults.Add(fileKey, file, "certificates are checked against this file or not at all; give one of the two options");
        if (OptionRules.CertificateFileProblem(file) is { } problem)
            faults.Add(fileKey, file, problem);
    }
}
