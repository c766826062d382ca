using System.Net;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using VTunnel.Bridge.Relay;
using VTunnel.Bridge.State;
using VTunnel.Cli.Hosting;
using VTunnel.Cli.Settings;
using VTunnel.Cli.Syntax;
using VTunnel.Hosting;
using VTunnel.Options;

namespace VTunnel.Cli.Commands.Bridge;

/// <summary><c>vtunnel relay</c> and the commands below it.</summary>
internal static partial class RelayCommand
{
    private const int DefaultPort = 443;

    private static readonly OptionSpec Domain = new("domain", "NAME", "The public name of the relay, such as relay.example.com. Required.") { CommandLineOnly = true };
    private static readonly OptionSpec Url = new("url", "URL", "What publishers and consumers dial.") { CommandLineOnly = true, Default = "wss://NAME/" };

    private static readonly OptionSpec Host = new("host", "ADDR", "The address to listen on: an IP address, localhost, or * for all interfaces, IPv6 included.") { Default = "*" };
    private static readonly OptionSpec Port = new("port", "PORT", "The port to listen on; 0 takes a free one.") { Default = "443" };
    private static readonly OptionSpec TlsCert = new("tls-cert", "FILE", "The certificate in PEM, followed by those between it and its root. Read again when it changes.");
    private static readonly OptionSpec TlsKey = new("tls-key", "FILE", "The private key of that certificate in PEM, without a password.");
    private static readonly OptionSpec NoTls = new("no-tls", null, "Listen without TLS: on a loopback address, or behind a proxy that ends TLS.");
    private static readonly OptionSpec BehindProxy = new("behind-proxy", null, "Say that a proxy ends TLS in front: allows --no-tls on every address.");
    private static readonly OptionSpec Cover = new("cover", "DIR", "A web site to show to everybody who is not admitted; without it they get 404.");
    private static readonly OptionSpec MaxConnections = new("max-connections", "N", "How many connections may be open that nobody has been admitted on.") { Default = "1024" };
    private static readonly OptionSpec MaxStreams = new("max-streams", "N", "How many relayed connections a publisher and its users may have at a time.") { Default = "1000" };
    private static readonly OptionSpec MaxStreamsPerUser = new("max-streams-per-user", "N", "How many of these may be of one user.") { Default = "100" };
    private static readonly OptionSpec MaxBandwidth = new("max-bandwidth", "BYTES", "How many bytes per second a publisher and its users may move, both directions together; 0 is no limit.") { Default = "0" };
    private static readonly OptionSpec HandshakeTimeout = new("handshake-timeout", "DURATION", "How long a connection may take until somebody is admitted on it.") { Default = "10s" };
    private static readonly OptionSpec Expires = new("expires", "DURATION", "How long the code can be used.") { CommandLineOnly = true, Default = "24h" };
    private static readonly ArgumentSpec WhichInvitation = new("INVITATION", "its code, or the first letters of its id (at least 6)");
    private static readonly ArgumentSpec Which = new("PUBLISHER", "its name, or the first letters of its fingerprint (at least 6)");

    private static readonly CommandSpec Init = new("init", "Set up a relay on this machine.")
    {
        Options = [Domain, Url, BridgeCli.StateDir, BridgeCli.Quiet],
        Examples = [new("", "vtunnel relay init --domain relay.example.com")],
        Run = RunInit,
    };

    private static readonly CommandSpec Invite = new("invite", "Make a code with which one publisher can enrol, once.")
    {
        Options = [Expires, BridgeCli.StateDir, BridgeCli.Quiet],
        Examples = [new("", "vtunnel relay invite"), new("For a script:", "CODE=$(vtunnel relay invite --quiet)")],
        Run = RunInvite,
    };

    private static readonly CommandSpec Invitations = new("invitations", "List the invitations that can be used yet.")
    {
        Options = [BridgeCli.Json, BridgeCli.StateDir, BridgeCli.Quiet],
        Examples = [new("", "vtunnel relay invitations")],
        Run = RunInvitations,
    };

    private static readonly CommandSpec Withdraw = new("withdraw", "Withdraw an invitation; its code enrols nobody from now on.")
    {
        Arguments = [WhichInvitation],
        Options = [BridgeCli.StateDir, BridgeCli.Quiet],
        Examples = [new("", "vtunnel relay withdraw 4f1c09")],
        Run = RunWithdraw,
    };

    private static readonly CommandSpec List = new("list", "List the publishers that are enrolled, and how they are now.")
    {
        Options = [BridgeCli.Json, BridgeCli.StateDir, BridgeCli.Quiet],
        Examples = [new("", "vtunnel relay list")],
        Run = RunList,
    };

    private static readonly CommandSpec Remove = new("remove", "Remove a publisher; its connections are cut at once.")
    {
        Arguments = [Which],
        Options = [BridgeCli.StateDir, BridgeCli.Quiet],
        Examples = [new("", "vtunnel relay remove office")],
        Run = RunRemove,
    };

    public static readonly CommandSpec Spec = new("relay", "Connect publishers with their users, without being able to read what they say.")
    {
        Details = "Set it up once with 'vtunnel relay init'. Everything that is not admitted gets a plain 404, or the site of --cover. Ctrl-C and SIGTERM end it.",
        Options =
        [
            Host, Port, TlsCert, TlsKey, NoTls, BehindProxy, Cover, MaxConnections, MaxStreams, MaxStreamsPerUser, MaxBandwidth, HandshakeTimeout,
            BridgeCli.StateDir, CommonOptions.LogLevel, CommonOptions.LogFormat, CommonOptions.Config,
        ],
        Commands = [Init, Invite, Invitations, Withdraw, List, Remove],
        Examples =
        [
            new("With TLS of its own:", "vtunnel relay --tls-cert fullchain.pem --tls-key privkey.pem"),
            new("Behind caddy or nginx on the same machine:", "vtunnel relay --host 127.0.0.1 --port 8443 --no-tls"),
        ],
        Run = RunAsync,
    };

    private static Task<int> RunInit(SettingsReader settings)
    {
        var domain = settings.Text(Domain);
        if (domain is null && settings.SourceOf(Domain) is null)
            settings.Fault(Domain, null, "say how the relay is called, such as --domain relay.example.com");
        else if (domain is not null && Uri.CheckHostName(domain) == UriHostNameType.Unknown)
            settings.Fault(Domain, domain, "a domain is a host name, such as relay.example.com");
        var url = settings.OneOrNull<Uri>(Url, ValueParsers.ServerUrl);
        if (url is not null && url.Scheme is not ("ws" or "wss" or "http" or "https"))
            settings.Fault(Url, url.ToString(), "a URL begins with wss:// (or ws:// for tests)");
        return BridgeCli.Run(settings, () =>
        {
            var state = BridgeCli.State(settings);
            var address = url ?? new Uri($"wss://{domain}/");
            using var store = RelayStore.Initialize(state.Path, domain!, address);
            return BridgeCli.Tell(
                settings,
                address.ToString(),
                $"The relay for {address} is set up in {state.Path}.",
                $"Next, start it:            {BridgeCli.Command(settings, StartCommand(address))}",
                $"Then invite a publisher:   {BridgeCli.Command(settings, "relay invite")}");
        });
    }

    /// <summary>What starts a relay where this URL is that of the relay itself, and not of a proxy in front of it.</summary>
    private static string StartCommand(Uri url)
    {
        if (url.Scheme is not ("ws" or "http"))
            return $"relay --tls-cert fullchain.pem --tls-key privkey.pem{(url.Port == DefaultPort ? "" : $" --port {url.Port}")}";

        // Without TLS it listens on loopback only, unless it is told that this is seen to.
        var where = !url.IsLoopback ? "--behind-proxy" : $"--host {(IPAddress.TryParse(url.IdnHost, out var address) ? address : IPAddress.Loopback)}";
        return $"relay --no-tls {where} --port {url.Port}";
    }

    private static Task<int> RunInvite(SettingsReader settings)
    {
        var expires = settings.One(Expires, BridgeCli.LongDuration, TimeSpan.FromDays(1));
        return BridgeCli.Run(settings, () =>
        {
            using var store = RelayStore.Open(BridgeCli.State(settings).Path);
            var now = TimeProvider.System.GetUtcNow();
            var code = store.Invite(now, expires);
            return BridgeCli.Tell(
                settings,
                code,
                $"This code enrols one publisher, once, until {BridgeCli.Time(now + expires)}:",
                "",
                $"    {code}",
                "",
                $"Next, on the publisher:   vtunnel join {store.Settings.Url} {code}",
                $"To withdraw it:           {BridgeCli.Command(settings, "relay withdraw CODE")}");
        });
    }

    private static Task<int> RunInvitations(SettingsReader settings) => BridgeCli.Run(settings, () =>
    {
        using var store = RelayStore.Open(BridgeCli.State(settings).Path);
        return BridgeCli.PrintList(
            settings,
            store.ListInvitations(TimeProvider.System.GetUtcNow()),
            invitation => invitation.Id,
            $"No invitation is open. Next: {BridgeCli.Command(settings, "relay invite")}",
            ["ID", "CREATED", "EXPIRES"],
            invitation => [invitation.Id, BridgeCli.Time(invitation.Created), BridgeCli.Time(invitation.Expires)]);
    });

    private static Task<int> RunWithdraw(SettingsReader settings)
    {
        if (settings.Arguments is [""])
            settings.Fault(WhichInvitation, "", "say which one; 'vtunnel relay invitations' shows which are open");
        return BridgeCli.Run(settings, () =>
        {
            using var store = RelayStore.Open(BridgeCli.State(settings).Path);
            var withdrawn = store.Withdraw(settings.Arguments[0], TimeProvider.System.GetUtcNow());
            return BridgeCli.Tell(settings, withdrawn.Id, $"Invitation {withdrawn.Id} of {BridgeCli.Time(withdrawn.Created)} is withdrawn.");
        });
    }

    private static Task<int> RunList(SettingsReader settings) => BridgeCli.RunAsync(settings, async () =>
    {
        var state = BridgeCli.State(settings);
        using var store = RelayStore.Open(state.Path);
        var status = await ControlSocket.AskAsync<RelayStatus>(state.SocketPath("relay"), "status");
        var rows = store.List().Select(known =>
        {
            var now = status?.Publishers.FirstOrDefault(publisher => publisher.Fingerprint == known.Fingerprint);
            return new ListedPublisher(
                known.Name,
                known.Fingerprint,
                known.Enrolled,
                RelayIsRunning: status is not null,
                now?.IsConnected ?? false,
                now?.Remote,
                now?.Streams ?? 0,
                now?.BytesFromConsumers ?? 0,
                now?.BytesFromPublisher ?? 0);
        }).ToList();
        return BridgeCli.PrintList(
            settings,
            rows,
            row => row.Fingerprint,
            $"Nobody is enrolled yet. Next: {BridgeCli.Command(settings, "relay invite")}",
            ["NAME", "FINGERPRINT", "ENROLLED", "STATE", "CONNECTIONS", "FROM USERS", "FROM PUBLISHER"],
            row =>
            [
                row.Name,
                row.Fingerprint[..12],
                BridgeCli.Time(row.Enrolled),
                !row.RelayIsRunning ? "the relay is not running" : row.IsConnected ? $"connected from {row.Remote}" : "not connected",
                $"{row.Streams}",
                BridgeCli.Bytes(row.BytesFromConsumers),
                BridgeCli.Bytes(row.BytesFromPublisher),
            ]);
    });

    private static Task<int> RunRemove(SettingsReader settings)
    {
        if (settings.Arguments is [""])
            settings.Fault(Which, "", "say which one; 'vtunnel relay list' shows who is enrolled");
        return BridgeCli.Run(settings, () => RemovePublisher(settings));
    }

    private static int RemovePublisher(SettingsReader settings)
    {
        using var store = RelayStore.Open(BridgeCli.State(settings).Path);
        var removed = store.Remove(settings.Arguments[0], TimeProvider.System.GetUtcNow());
        return BridgeCli.Tell(
            settings,
            removed.Fingerprint,
            $"Publisher {OneLine.Of(removed.Name)} ({removed.Fingerprint[..12]}) is removed; a running relay cuts its connections within a second.",
            $"To admit it again:   {BridgeCli.Command(settings, "relay invite")}",
            $"and on the publisher, so that its key and its users' bundles stay good:   vtunnel join {store.Settings.Url} CODE --context NAME");
    }

    private static async Task<int> RunAsync(SettingsReader settings)
    {
        var address = settings.One<IPAddress?>(Host, ValueParsers.ListenHost, null);
        var port = settings.One(Port, ValueParsers.ListenPort, DefaultPort);
        var maxConnections = settings.One(MaxConnections, ValueParsers.Count, 1024);
        var bandwidth = settings.One<long>(MaxBandwidth, ParseBytes, 0);
        var handshake = settings.One(HandshakeTimeout, ValueParsers.Duration, TimeSpan.FromSeconds(10));
        var options = new RelayOptions
        {
            MaxStreamsPerPublisher = settings.One(MaxStreams, ValueParsers.Count, 1000),
            MaxStreamsPerUser = settings.One(MaxStreamsPerUser, ValueParsers.Count, 100),
            MaxBytesPerSecond = bandwidth,
        };
        if (maxConnections < 1)
            settings.Fault(MaxConnections, $"{maxConnections}", "at least 1 connection is needed");
        if (options.MaxStreamsPerPublisher < 1)
            settings.Fault(MaxStreams, $"{options.MaxStreamsPerPublisher}", "at least 1 connection is needed");
        if (options.MaxStreamsPerUser < 1)
            settings.Fault(MaxStreamsPerUser, $"{options.MaxStreamsPerUser}", "at least 1 connection is needed");
        if (handshake <= TimeSpan.Zero || handshake > TimeSpan.FromDays(1))
            settings.Fault(HandshakeTimeout, DurationText.Format(handshake), "more than 0 and at most 24h");
        var certificate = ReadCertificate(settings, address);
        var cover = settings.Text(Cover);
        if (cover is not null && !Directory.Exists(cover))
            settings.Fault(Cover, cover, "there is no such folder");
        var (level, format) = BridgeCli.Log(settings);
        return await BridgeCli.RunAsync(settings, async () =>
        {
            var state = BridgeCli.State(settings);
            using var store = RelayStore.Open(state.Path);
            using var interrupts = new Interrupts();
            var builder = Kestrel.CreateBuilder(address, port, handshake, certificate);
            builder.WebHost.ConfigureKestrel(kestrel =>
            {
                // One that was admitted is upgraded, and an upgraded one does not count here: these are the strangers.
                kestrel.Limits.MaxConcurrentConnections = maxConnections;
                kestrel.Limits.MaxRequestHeadersTotalSize = 16 * 1024;
                kestrel.Limits.MaxRequestBodySize = 16 * 1024;
            });
            Logging.Configure(builder.Logging, level, format);
            builder.Services.Configure<ConsoleLifetimeOptions>(lifetime => lifetime.SuppressStatusMessages = true);
            builder.Services.Configure<HostOptions>(host => host.ShutdownTimeout = Terminal.ShutdownGrace);
            builder.AddVTunnelRelay(store, options);
            await using var app = builder.Build();
            app.UseVTunnelRelay(cover);
            var logger = app.Services.GetRequiredService<ILoggerFactory>().CreateLogger(typeof(RelayCommand).FullName!);
            if (certificate is not null)
                certificate.Logger = logger;
            return await ServeAsync(app, state, store, logger, address, port, interrupts.Stopping);
        });
    }

    private static async Task<int> ServeAsync(
        WebApplication app, StateDirectory state, RelayStore store, ILogger logger, IPAddress? address, int port, CancellationToken stopping)
    {
        var relay = app.Services.GetRequiredService<BridgeRelay>();
        await using var control = await ControlSocket.StartAsync(
            state.SocketPath("relay"), async (question, _) => question == "status" ? await relay.GetStatusAsync() : null);
        await using var stop = stopping.Register(app.Lifetime.StopApplication);
        try
        {
            await app.StartAsync(stopping);
        }
        catch (OperationCanceledException) when (stopping.IsCancellationRequested)
        {
            return ExitCodes.Success;
        }
        catch (Exception e) when (Kestrel.ListenProblem(e) is { } problem)
        {
            LogCannotListen(logger, address is null ? $"port {port} of all interfaces" : new IPEndPoint(address, port).ToString(), problem);
            return ExitCodes.CannotListen;
        }

        foreach (var url in app.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()?.Addresses ?? [])
            LogListening(logger, url.Replace("http", "ws", StringComparison.Ordinal), store.Settings.Url);
        if (control is null)
            LogNoStatus(logger, state.Path);
        await app.WaitForShutdownAsync(CancellationToken.None);
        return ExitCodes.Success;
    }

    private static ReloadedCertificate? ReadCertificate(SettingsReader settings, IPAddress? address)
    {
        var (certificateFile, keyFile) = (settings.Text(TlsCert), settings.Text(TlsKey));
        if (settings.Switch(NoTls))
        {
            if (certificateFile is not null || keyFile is not null)
                settings.Fault(NoTls, null, "there is a certificate as well; give one or the other");
            if (!settings.Switch(BehindProxy) && (address is null || !IPAddress.IsLoopback(address)))
            {
                settings.Fault(
                    NoTls, null, $"without TLS the relay listens on a loopback address only: give {Host.LongName} 127.0.0.1, or {BehindProxy.LongName} if a proxy in front ends TLS");
            }

            return null;
        }

        if (certificateFile is null || keyFile is null)
        {
            settings.Fault(
                certificateFile is null ? TlsCert : TlsKey,
                null,
                $"TLS needs a certificate and its key: {TlsCert.LongName} FILE {TlsKey.LongName} FILE; behind a proxy that ends TLS give {NoTls.LongName}");
            return null;
        }

        var (certificate, certificateProblem, keyProblem) = ServerCertificate.Load(certificateFile, keyFile);
        if (certificateProblem is not null)
            settings.Fault(TlsCert, certificateFile, certificateProblem);
        if (keyProblem is not null)
            settings.Fault(TlsKey, keyFile, keyProblem);
        return certificate is null ? null : new ReloadedCertificate(certificateFile, keyFile, certificate);
    }

    private static bool ParseBytes(string text, out long value, [System.Diagnostics.CodeAnalysis.NotNullWhen(false)] out string? problem)
    {
        problem = long.TryParse(text, System.Globalization.NumberStyles.None, System.Globalization.CultureInfo.InvariantCulture, out value) && (value == 0 || value >= 65_536)
            ? null
            : "a number of bytes per second, at least 65536, or 0 for no limit";
        return problem is null;
    }

    [LoggerMessage(9201, LogLevel.Information, "Listening on {Url}; publishers and consumers dial {Public}")]
    private static partial void LogListening(ILogger logger, string url, Uri @public);

    [LoggerMessage(9202, LogLevel.Critical, "Cannot listen on {Endpoint}: {Problem}")]
    private static partial void LogCannotListen(ILogger logger, string endpoint, string problem);

    [LoggerMessage(9203, LogLevel.Warning, "The path of {StateDir} is too long for a socket: 'vtunnel relay list' and 'vtunnel status' will not know how things are now")]
    private static partial void LogNoStatus(ILogger logger, string stateDir);
}

/// <summary>An enrolled publisher, as <c>relay list</c> shows it.</summary>
internal sealed record ListedPublisher(
    string Name,
    string Fingerprint,
    DateTimeOffset Enrolled,
    bool RelayIsRunning,
    bool IsConnected,
    string? Remote,
    int Streams,
    long BytesFromConsumers,
    long BytesFromPublisher);
