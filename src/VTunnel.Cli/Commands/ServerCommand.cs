using System.Net;
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

namespace VTunnel.Cli.Commands;

/// <summary><c>vtunnel server</c>.</summary>
internal static partial class ServerCommand
{
    private const int DefaultPort = 3001;

    private static readonly OptionSpec Host = new("host", "ADDR", "The address to listen on for tunnel clients: an IP address, localhost (127.0.0.1), or * for all interfaces, IPv6 included.") { Default = "*" };
    private static readonly OptionSpec Port = new("port", "PORT", "The port to listen on for tunnel clients; 0 takes a free one.") { Default = "3001" };
    private static readonly OptionSpec TlsCert = new("tls-cert", "FILE", "The server's certificate in PEM, followed by those between it and its root: clients then connect with wss://.");
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

    public static readonly CommandSpec Spec = new("server", "Accept tunnel clients and open ports for them.")
    {
        Details = "GET /health answers 200 'ok'. Ctrl-C and SIGTERM let open connections finish; a second Ctrl-C ends at once.",
        Options =
        [
            Host, Port, TlsCert, TlsKey, ListenAddress, Token, Tokens, AllowOrigin, MaxSessions, MaxListeners, MaxStreams,
            HandshakeTimeout, IdleTimeout, ProbeTimeout, ListenRetryTimeout, CommonOptions.DrainTimeout, CommonOptions.Protocol,
            CommonOptions.MaxMessageBytes, CommonOptions.StreamBufferBytes, CommonOptions.ResumeWindow, CommonOptions.MaxStreamWindowBytes,
            CommonOptions.MaxSessionWindowBytes, CommonOptions.LogLevel, CommonOptions.LogFormat, CommonOptions.Config,
        ],
        Examples =
        [
            new("Listen on port 3001 of every interface, for anyone:", "vtunnel server --port 3001"),
            new("Only for those who have a token:", "vtunnel token create --name alice --tokens tokens.json\nvtunnel server --tokens tokens.json"),
            new("With TLS of its own:", "vtunnel server --port 443 --tls-cert fullchain.pem --tls-key privkey.pem"),
            new("Behind a proxy on the same machine:", "vtunnel server --host 127.0.0.1"),
        ],
        Run = RunAsync,
    };

    private static async Task<int> RunAsync(SettingsReader settings)
    {
        var options = ReadOptions(settings);
        var address = settings.One<IPAddress?>(Host, ValueParsers.ListenHost, null);
        var port = settings.One(Port, ValueParsers.ListenPort, DefaultPort);
        var certificate = ReadCertificate(settings);
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

        await using var app = builder.Build();
        app.MapVTunnel("/");
        Kestrel.MapHealth(app);

        var logger = app.Services.GetRequiredService<ILoggerFactory>().CreateLogger(typeof(ServerCommand).FullName!);
        await using var stop = interrupts.Stopping.Register(app.Lifetime.StopApplication);
        try
        {
            await app.StartAsync(interrupts.Stopping);
        }
        catch (OperationCanceledException) when (interrupts.Stopping.IsCancellationRequested)
        {
            return ExitCodes.Success;
        }
        catch (Exception e) when (Kestrel.ListenProblem(e) is { } problem)
        {
            var endpoint = address is null ? $"port {port} of all interfaces" : new IPEndPoint(address, port).ToString();
            LogCannotListen(logger, endpoint, problem);
            return ExitCodes.CannotListen;
        }

        foreach (var url in app.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()?.Addresses ?? [])
            LogListening(logger, url.Replace("http", "ws", StringComparison.Ordinal));
        if (options.Tokens.Count == 0 && (address is null || !IPAddress.IsLoopback(address)))
            LogOpenToAnyone(logger, options.ListenAddress);

        await app.WaitForShutdownAsync();
        LogStopped(logger);
        return ExitCodes.Success;
    }

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
        };
    }

    private static List<AccessToken> ReadTokens(SettingsReader settings)
    {
        var given = settings.Many<Secret>(Token, ValueParsers.Token).Distinct();
        var tokens = given.Select((token, index) => AccessTokens.EntryFor($"token-{index + 1}", token)).ToList();
        if (settings.Text(Tokens) is not { } file)
            return tokens;

        try
        {
            var read = TokenFile.Read(file);

            // A server that was told to ask for tokens must not be open to anyone because its file is still empty.
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

    private static ServerCertificate? ReadCertificate(SettingsReader settings)
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
        return certificate;
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

    [LoggerMessage(9003, LogLevel.Information, "Server stopped")]
    private static partial void LogStopped(ILogger logger);
}
