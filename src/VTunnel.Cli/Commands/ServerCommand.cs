using System.Net;
using System.Security.Cryptography.X509Certificates;
using Akka.Hosting;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using VTunnel.Access;
using VTunnel.Cli.Hosting;
using VTunnel.Cli.Settings;
using VTunnel.Cli.Syntax;
using VTunnel.Hosting;
using VTunnel.Options;
using VTunnel.Routing;

namespace VTunnel.Cli.Commands;

/// <summary><c>vtunnel server</c>.</summary>
internal static partial class ServerCommand
{
    private const int DefaultPort = 3001;

    private static readonly OptionSpec Host = new("host", "ADDR", "The address to listen on for tunnel clients: an IP address, localhost (127.0.0.1), or * for all interfaces, IPv6 included.") { Default = "*" };
    private static readonly OptionSpec Port = new("port", "PORT", "The port to listen on for tunnel clients; 0 takes a free one.") { Default = "3001" };
    private static readonly OptionSpec TlsCert = new("tls-cert", "FILE", "The server's certificate in PEM, followed by those between it and its root: clients then connect with wss://. Read again when it changes.");
    private static readonly OptionSpec TlsKey = new("tls-key", "FILE", "The private key of that certificate in PEM, without a password.");
    private static readonly OptionSpec ListenAddress = new("listen-address", "ADDR", "The address of the ports that clients open. With anything but a loopback address the whole network can reach what clients forward.") { Default = "127.0.0.1", Property = nameof(TunnelServerOptions.ListenAddress) };
    private static readonly OptionSpec Token = new("token", "TOKEN", "A token that opens tunnels, for every port. Other users of the machine can read a command line: use the variable, or --tokens.") { Repeatable = true, Secret = true };
    private static readonly OptionSpec Tokens = new("tokens", "FILE", "The file of tokens that 'vtunnel token create' writes: names, hashes, ports. Read once, at start.") { Property = nameof(TunnelServerOptions.Tokens), FaultsNameTheirValue = true };
    private static readonly OptionSpec AllowOrigin = new("allow-origin", "ORIGIN", "A browser origin whose pages may open tunnels, such as https://app.example.com. Without it every request with an Origin is refused.") { Repeatable = true, Property = nameof(TunnelServerOptions.AllowedOrigins) };
    private static readonly OptionSpec MaxSessions = new("max-sessions", "N", "How many clients may be connected at a time.") { Default = "10000", Property = nameof(TunnelServerOptions.MaxSessions) };
    private static readonly OptionSpec MaxListeners = new("max-listeners", "N", "How many ports a client may open.") { Default = "256", Property = nameof(TunnelServerOptions.MaxListenersPerSession) };
    private static readonly OptionSpec MaxStreams = new("max-streams", "N", "How many connections a client may carry at a time.") { Default = "20000", Property = nameof(TunnelServerOptions.MaxStreamsPerSession) };
    private static readonly OptionSpec HandshakeTimeout = new("handshake-timeout", "DURATION", "How long a client may take until its tunnel is up.") { Default = "10s", Property = nameof(TunnelServerOptions.HandshakeTimeout) };
    private static readonly OptionSpec IdleTimeout = new("idle-timeout", "DURATION", "A client that sends nothing at all for so long is taken for dead; 0 or a negative one disables.") { Default = "60s", Property = nameof(TunnelServerOptions.IdleTimeout) };
    private static readonly OptionSpec ProbeTimeout = new("probe-timeout", "DURATION", "How long the holder of a port has to answer when another client wants the port.") { Default = "2s", Property = nameof(TunnelServerOptions.ProbeTimeout) };
    private static readonly OptionSpec ListenRetryTimeout = new("listen-retry-timeout", "DURATION", "How long a port that another program uses is tried again before the client is refused.") { Default = "2s", Property = nameof(TunnelServerOptions.ListenRetryTimeout) };

    private static readonly OptionSpec Proxy = new("proxy", "PORT", "The port of an HTTP proxy, which sends what clients forward to them and everything else direct; 0 takes a free one. Without it there is none.") { Property = "Proxy.Port" };
    private static readonly OptionSpec ProxyHost = new("proxy-host", "ADDR", "The address that the proxy listens on. One that others can reach needs --proxy-auth or --proxy-open.") { Default = "127.0.0.1", Property = "Proxy.Address" };
    private static readonly OptionSpec ProxyAuth = new("proxy-auth", "USER:PASSWORD", "A user of the proxy, who then has to say so. Other users of the machine can read a command line: use the variable, with one per line.") { Repeatable = true, Secret = true, Separators = "\n", Property = "Proxy.Credentials" };
    private static readonly OptionSpec ProxyOpen = new("proxy-open", null, "Let anyone use a proxy that others can reach. Danger: they use this machine's network, and what clients forward.");
    private static readonly OptionSpec ProxyDirect = new("proxy-direct", "allow|deny", "Whether the proxy connects to hosts that no client forwards.") { Default = "allow", Choices = ["allow", "deny"] };
    private static readonly OptionSpec ProxyAllow = new("proxy-allow", "PATTERN", "A host to connect to although --proxy-direct is deny: app.example.com, *.example.com, mail.*, with :PORT or without. One without * may also be this machine's own.") { Repeatable = true, Property = "Proxy.Allowed" };
    private static readonly OptionSpec ProxyResolve = new("proxy-resolve", "NAME=ADDR", "Where a name is, instead of what the resolver says; any address will do.") { Repeatable = true, Property = "Proxy.Addresses" };
    private static readonly OptionSpec ProxyMitmCa = new("proxy-mitm-ca", "FILE", "End TLS for the domains that clients forward, with certificates of the authority in this PEM file (certificate and key, as 'vtunnel ca create' writes it).") { Property = "Proxy.InterceptionAuthority" };

    public static readonly CommandSpec Spec = new("server", "Accept tunnel clients and open ports for them.")
    {
        Details = "GET /health answers 200 'ok'. Ctrl-C and SIGTERM let open connections finish; a second Ctrl-C ends at once.",
        Options =
        [
            Host, Port, TlsCert, TlsKey, ListenAddress, Token, Tokens, AllowOrigin, MaxSessions, MaxListeners, MaxStreams,
            HandshakeTimeout, IdleTimeout, ProbeTimeout, ListenRetryTimeout, CommonOptions.DrainTimeout, Proxy, ProxyHost, ProxyAuth, ProxyOpen,
            ProxyDirect, ProxyAllow, ProxyResolve, ProxyMitmCa, CommonOptions.Protocol,
            CommonOptions.MaxMessageBytes, CommonOptions.StreamBufferBytes, CommonOptions.ResumeWindow, CommonOptions.MaxStreamWindowBytes,
            CommonOptions.MaxSessionWindowBytes, TunnelSocket.StateDir, CommonOptions.LogLevel, CommonOptions.LogFormat, CommonOptions.Config,
        ],
        Examples =
        [
            new("Listen on port 3001 of every interface, for anyone:", "vtunnel server --port 3001"),
            new("Only for those who have a token:", "vtunnel token create --name alice --tokens tokens.json\nvtunnel server --tokens tokens.json"),
            new("With TLS of its own:", "vtunnel server --port 443 --tls-cert fullchain.pem --tls-key privkey.pem"),
            new("Behind a proxy on the same machine:", "vtunnel server --host 127.0.0.1"),
            new("With an HTTP proxy for containers on the same machine:", "vtunnel server --port 3001 --proxy 9090"),
        ],
        Run = RunAsync,
    };

    private static async Task<int> RunAsync(SettingsReader settings)
    {
        var options = ReadOptions(settings);
        var address = settings.One<IPAddress?>(Host, ValueParsers.ListenHost, null);
        var port = settings.One(Port, ValueParsers.ListenPort, DefaultPort);
        if (port != 0 && options.Proxy?.Port == port && Overlap(address ?? IPAddress.IPv6Any, options.Proxy.Address))
            settings.Fault(Proxy, $"{port}", $"this is the port for tunnel clients, too ({settings.LabelOf(Port)}); give each a port of its own");
        var certificate = ReadCertificate(settings);
        if (options.Proxy is { } proxy && certificate is not null)
            proxy.CertificateSelector = () => certificate.Current;
        var folder = TunnelSocket.ReadFolder(settings);
        var level = settings.One(CommonOptions.LogLevel, ValueParsers.Level, LogLevel.Information);
        var format = settings.One(CommonOptions.LogFormat, ValueParsers.Format, LogFormat.Text);
        settings.Fault(TunnelServerOptionsValidator.Check(options));
        if (settings.Faults.Count > 0)
            return Terminal.Refuse(settings.Faults);

        using var interrupts = new Interrupts();
        var builder = Kestrel.CreateBuilder(address, port, options.HandshakeTimeout, certificate);
        Logging.Configure(builder.Logging, level, format);
        builder.Services.Configure<ConsoleLifetimeOptions>(lifetime => lifetime.SuppressStatusMessages = true);
        builder.Services.Configure<HostOptions>(host => host.ShutdownTimeout = options.DrainTimeout + Terminal.ShutdownGrace);
        builder.AddVTunnelServer(target => Copy(options, target));
        builder.ConfigureVTunnelActors((akka, _) => akka.AddHocon(EngineConfiguration.WithoutSerializers, HoconAddMode.Prepend));

        await using var app = builder.Build();
        app.MapVTunnel("/");
        Kestrel.MapHealth(app);

        var logger = app.Services.GetRequiredService<ILoggerFactory>().CreateLogger(typeof(ServerCommand).FullName!);
        if (certificate is not null)
            certificate.Logger = logger;
        await using var stop = interrupts.Stopping.Register(app.Lifetime.StopApplication);
        try
        {
            await app.StartAsync(interrupts.Stopping);
        }
        catch (OperationCanceledException) when (interrupts.Stopping.IsCancellationRequested)
        {
            return ExitCodes.Success;
        }
        catch (ProxyListenException e)
        {
            LogCannotListen(logger, $"{options.Proxy!.Address}, port {options.Proxy.Port}, for the proxy", Kestrel.ListenProblem(e) ?? e.Message);
            return ExitCodes.CannotListen;
        }
        catch (Exception e) when (Kestrel.ListenProblem(e) is { } problem)
        {
            var endpoint = address is null ? $"port {port} of all interfaces" : new IPEndPoint(address, port).ToString();
            LogCannotListen(logger, endpoint, problem);
            return ExitCodes.CannotListen;
        }

        var urls = (app.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()?.Addresses ?? [])
            .Select(url => url.Replace("http", "ws", StringComparison.Ordinal)).ToArray();
        foreach (var url in urls)
            LogListening(logger, url);
        if (app.Services.GetRequiredService<VTunnelProxy>().Address is { } proxyAddress)
            LogProxyListening(logger, proxyAddress);
        if (options.Tokens.Count == 0 && (address is null || !IPAddress.IsLoopback(address)))
            LogOpenToAnyone(logger, options.ListenAddress);

        await using var socket = await TunnelSocket.StartAsync(folder, TunnelSocket.Server, StatusAsync, logger);
        await app.WaitForShutdownAsync();
        LogStopped(logger);
        return ExitCodes.Success;

        async Task<object?> StatusAsync() => new RunningServer(
            Environment.ProcessId,
            urls,
            app.Services.GetRequiredService<VTunnelProxy>().Address?.ToString(),
            await app.Services.GetRequiredService<VTunnelServer>().GetStatusAsync());
    }

    /// <summary>Whether a port can be listened on at one of two addresses only. That of all IPv6 interfaces takes IPv4 as well.</summary>
    private static bool Overlap(IPAddress one, IPAddress other) =>
        one.Equals(other) || one.Equals(IPAddress.IPv6Any) || other.Equals(IPAddress.IPv6Any)
        || (one.AddressFamily == other.AddressFamily && (one.Equals(IPAddress.Any) || other.Equals(IPAddress.Any)));

    private static TunnelServerOptions ReadOptions(SettingsReader settings)
    {
        var defaults = new TunnelServerOptions();
        var idle = settings.One(IdleTimeout, ValueParsers.Duration, defaults.IdleTimeout);
        return new TunnelServerOptions
        {
            ListenAddress = settings.One(ListenAddress, ValueParsers.Address, defaults.ListenAddress),
            Protocol = settings.One(CommonOptions.Protocol, ValueParsers.Protocol, defaults.Protocol),
            IdleTimeout = idle <= TimeSpan.Zero ? Timeout.InfiniteTimeSpan : idle,
            HandshakeTimeout = settings.One(HandshakeTimeout, ValueParsers.Duration, defaults.HandshakeTimeout),
            ProbeTimeout = settings.One(ProbeTimeout, ValueParsers.Duration, defaults.ProbeTimeout),
            ListenRetryTimeout = settings.One(ListenRetryTimeout, ValueParsers.Duration, defaults.ListenRetryTimeout),
            DrainTimeout = settings.One(CommonOptions.DrainTimeout, ValueParsers.Duration, defaults.DrainTimeout),
            MaxMessageBytes = settings.One(CommonOptions.MaxMessageBytes, ValueParsers.Count, defaults.MaxMessageBytes),
            StreamBufferBytes = settings.One(CommonOptions.StreamBufferBytes, ValueParsers.Count, defaults.StreamBufferBytes),
            ResumeWindow = settings.One(CommonOptions.ResumeWindow, ValueParsers.Duration, defaults.ResumeWindow),
            MaxStreamWindowBytes = settings.One(CommonOptions.MaxStreamWindowBytes, ValueParsers.Count, defaults.MaxStreamWindowBytes),
            MaxSessionWindowBytes = settings.One(CommonOptions.MaxSessionWindowBytes, ValueParsers.Count, defaults.MaxSessionWindowBytes),
            MaxSessions = settings.One(MaxSessions, ValueParsers.Count, defaults.MaxSessions),
            MaxListenersPerSession = settings.One(MaxListeners, ValueParsers.Count, defaults.MaxListenersPerSession),
            MaxStreamsPerSession = settings.One(MaxStreams, ValueParsers.Count, defaults.MaxStreamsPerSession),
            AllowedOrigins = settings.Many<string>(AllowOrigin, ValueParsers.Text),
            Tokens = ReadTokens(settings),
            Proxy = ReadProxy(settings),
        };
    }

    private static ProxyOptions? ReadProxy(SettingsReader settings)
    {
        var defaults = new ProxyOptions();
        if (settings.IsEmpty(ProxyAuth))
            settings.Fault(ProxyAuth, null, "no user is given; leave the option out if nobody is to be asked");
        var proxy = new ProxyOptions
        {
            Port = settings.One(Proxy, ValueParsers.ListenPort, defaults.Port),
            Address = settings.One<IPAddress?>(ProxyHost, ValueParsers.ListenHost, defaults.Address) ?? IPAddress.IPv6Any,
            Credentials = settings.Many<ProxyCredential>(ProxyAuth, ValueParsers.Credential),
            Open = settings.Switch(ProxyOpen),
            AllowDirect = settings.One(ProxyDirect, ValueParsers.AllowOrDeny, defaults.AllowDirect),
            Allowed = settings.Many<HostPattern>(ProxyAllow, HostPattern.TryParse),
            Addresses = settings.Many<HostAddress>(ProxyResolve, ValueParsers.HostAddress),
            InterceptionAuthority = ReadAuthority(settings),
        };
        if (settings.SourceOf(Proxy) is not null)
            return proxy;
        foreach (var option in new[] { ProxyHost, ProxyAuth, ProxyOpen, ProxyDirect, ProxyAllow, ProxyResolve, ProxyMitmCa })
        {
            if (settings.SourceOf(option) is not null)
                settings.Fault(option, null, $"there is no proxy that this could be for; give {Proxy.LongName} PORT, too");
        }

        return null;
    }

    private static X509Certificate2? ReadAuthority(SettingsReader settings)
    {
        if (settings.Text(ProxyMitmCa) is not { } file)
            return null;
        var (authority, certificateProblem, keyProblem) = ServerCertificate.Load(file, file);
        if ((certificateProblem ?? keyProblem) is not { } problem)
            return authority!.Certificate;
        settings.Fault(ProxyMitmCa, file, problem);
        return null;
    }

    private static List<AccessToken> ReadTokens(SettingsReader settings)
    {
        // A server that was told to ask for tokens must not be open to anyone because there is none.
        if (settings.IsEmpty(Token))
            settings.Fault(Token, null, "no token is given; leave the option out if anyone may open tunnels");
        var given = settings.Many<Secret>(Token, ValueParsers.Token).Distinct();
        var tokens = given.Select((token, index) => AccessTokens.EntryFor($"token-{index + 1}", token)).ToList();
        if (settings.Text(Tokens) is not { } file)
            return tokens;

        try
        {
            var read = TokenFile.Read(file);
            if (read.Count == 0)
                settings.Fault(Tokens, file, "no token in this file; add one with 'vtunnel token create'");
            tokens.AddRange(read);
        }
        catch (TokenFileException e)
        {
            foreach (var problem in e.Problems)
                settings.Fault(Tokens, file, problem);
        }

        return tokens;
    }

    private static ReloadedCertificate? ReadCertificate(SettingsReader settings)
    {
        var certificateFile = settings.Text(TlsCert);
        var keyFile = settings.Text(TlsKey);
        if (certificateFile is null && keyFile is null)
            return null;
        if (certificateFile is null || keyFile is null)
        {
            var (given, value, missing) = certificateFile is null ? (TlsKey, keyFile, TlsCert) : (TlsCert, certificateFile, TlsKey);
            settings.Fault(given, value, $"TLS needs a certificate and its key; give {missing.LongName} FILE, too");
            return null;
        }

        var (certificate, certificateProblem, keyProblem) = ServerCertificate.Load(certificateFile, keyFile);
        if (certificateProblem is not null)
            settings.Fault(TlsCert, certificateFile, certificateProblem);
        if (keyProblem is not null)
            settings.Fault(TlsKey, keyFile, keyProblem);
        return certificate is null ? null : new ReloadedCertificate(certificateFile, keyFile, certificate);
    }

    /// <summary>Every option there is, so that none is forgotten.</summary>
    private static void Copy(TunnelServerOptions source, TunnelServerOptions target)
    {
        foreach (var property in typeof(TunnelServerOptions).GetProperties())
            property.SetValue(target, property.GetValue(source));
    }

    [LoggerMessage(9001, LogLevel.Information, "Listening on {Url}")]
    private static partial void LogListening(ILogger logger, string url);

    [LoggerMessage(9002, LogLevel.Warning, "No token is asked for: anyone who can reach this address can open ports on {ListenAddress} of this machine and receive what is sent to them; "
        + "give --tokens or VTUNNEL_TOKEN, or --host 127.0.0.1")]
    private static partial void LogOpenToAnyone(ILogger logger, IPAddress listenAddress);

    [LoggerMessage(9004, LogLevel.Critical, "Cannot listen on {Endpoint}: {Reason}")]
    private static partial void LogCannotListen(ILogger logger, string endpoint, string reason);

    [LoggerMessage(9005, LogLevel.Information, "Proxy listening on {Address}")]
    private static partial void LogProxyListening(ILogger logger, IPEndPoint address);

    [LoggerMessage(9003, LogLevel.Information, "Server stopped")]
    private static partial void LogStopped(ILogger logger);
}
