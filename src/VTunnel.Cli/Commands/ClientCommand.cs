using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using VTunnel.Carriers;
using VTunnel.Cli.Hosting;
using VTunnel.Cli.Settings;
using VTunnel.Cli.Syntax;
using VTunnel.Hosting;
using VTunnel.Options;
using VTunnel.Routing;

namespace VTunnel.Cli.Commands;

/// <summary><c>vtunnel client</c>.</summary>
internal static partial class ClientCommand
{
    private static readonly OptionSpec Server = new("server", "URL", "The server: ws://HOST[:PORT]/ or wss://HOST[:PORT]/; http:// and https:// mean the same. Required.") { MayHoldSecret = true, Property = nameof(TunnelClientOptions.Server), FaultsNameTheirValue = true };
    private static readonly OptionSpec Forward = new("forward", "PORT=TARGET", "A port of the server, or a domain of its proxy (app.example.com, *.example.com, with :PORT or for 80 and 443), and where its connections go: HOST:PORT, or tls://HOST[:PORT] for a target that speaks TLS (its visitors need not). Required.") { Repeatable = true, MayHoldSecret = true, Property = nameof(TunnelClientOptions.Forwards) };
    private static readonly OptionSpec ServerHeader = new("server-header", "'NAME: VALUE'", "A header to send to the server, or to a proxy in front of it. In the variable, one per line.") { Repeatable = true, Secret = true, Separators = "\n", Property = nameof(TunnelClientOptions.Headers) };
    private static readonly OptionSpec Header = new("header", "'NAME: VALUE'", "A header for the HTTP requests of the forward before it, in place of theirs; or @FILE with one per line. The server never sees it.") { Letter = 'H', Repeatable = true, Secret = true, CommandLineOnly = true };
    private static readonly OptionSpec Token = new("token", "TOKEN", "The token that the server asks for. Other users of the machine can read a command line: use the variable, or --token-file.") { Secret = true, Property = nameof(TunnelClientOptions.Token) };
    private static readonly OptionSpec TokenFromFile = new("token-file", "FILE", "A file that holds the token and nothing else.");
    private static readonly OptionSpec PingInterval = new("ping-interval", "DURATION", "How often the server is asked for a sign of life; after twice as long without one the connection is given up. 0 or a negative one disables.") { Default = "30s", Property = nameof(TunnelClientOptions.PingInterval) };
    private static readonly OptionSpec ReconnectMin = new("reconnect-min", "DURATION", "The longest first wait before connecting again; it doubles up to the next option.") { Default = "1s", Property = nameof(TunnelClientOptions.ReconnectMin) };
    private static readonly OptionSpec ReconnectMax = new("reconnect-max", "DURATION", "The longest wait before connecting again.") { Default = "5s", Property = nameof(TunnelClientOptions.ReconnectMax) };
    private static readonly OptionSpec StableAfter = new("stable-after", "DURATION", "How long a connection must last until a loss is followed by the shortest wait again.") { Default = "10s", Property = nameof(TunnelClientOptions.StableAfter) };
    private static readonly OptionSpec ConnectTimeout = new("connect-timeout", "DURATION", "How long one attempt to connect to the server may take.") { Default = "15s", Property = nameof(TunnelClientOptions.ConnectTimeout) };
    private static readonly OptionSpec TargetConnectTimeout = new("target-connect-timeout", "DURATION", "How long one attempt to connect to a target may take.") { Default = "10s", Property = nameof(TunnelClientOptions.TargetConnectTimeout) };
    private static readonly OptionSpec MaxStreams = new("max-streams", "N", "How many connections to carry at a time; one more is refused.") { Default = "20000", Property = nameof(TunnelClientOptions.MaxStreams) };
    private static readonly OptionSpec NoReconnect = new("no-reconnect", null, "End when the server cannot be reached, is lost, or refuses a forward.");
    private static readonly OptionSpec Insecure = new("insecure", null, "Accept any certificate of the server. Danger: whoever is on the way can read and change everything.");
    private static readonly OptionSpec CertificateAuthority = new("ca", "FILE", "Trust the authorities in this PEM file for the server, instead of the system's.") { Property = "ServerTls.CertificateAuthorityFile" };
    private static readonly OptionSpec TargetInsecure = new("target-insecure", null, "Accept any certificate of tls:// targets. Danger as above.");
    private static readonly OptionSpec TargetCertificateAuthority = new("target-ca", "FILE", "Trust the authorities in this PEM file for tls:// targets, instead of the system's.") { Property = "TargetTls.CertificateAuthorityFile" };

    public static readonly CommandSpec Spec = new("client", "Connect to a server and forward ports of it to targets that this machine can reach.")
    {
        Details = "Connects again after a loss, and when the first attempt fails, unless --no-reconnect is given. Durations are written as 300ms, 1.5s, 2m or 1h30m. "
            + "Ctrl-C and SIGTERM let open connections finish; a second Ctrl-C ends at once.",
        Options =
        [
            Server, Forward, Header, ServerHeader, Token, TokenFromFile, PingInterval, ReconnectMin, ReconnectMax, StableAfter, NoReconnect, Insecure,
            CertificateAuthority, TargetInsecure, TargetCertificateAuthority, ConnectTimeout, TargetConnectTimeout, CommonOptions.DrainTimeout,
            MaxStreams, CommonOptions.Protocol, CommonOptions.MaxMessageBytes, CommonOptions.StreamBufferBytes, CommonOptions.ResumeWindow,
            CommonOptions.MaxStreamWindowBytes, CommonOptions.MaxSessionWindowBytes, TunnelSocket.StateDir, CommonOptions.LogLevel, CommonOptions.LogFormat,
            CommonOptions.Config,
        ],
        Examples =
        [
            new("Two services:", "vtunnel client --server ws://server.example.com:3001/ --forward 9000=localhost:3000 --forward 9001=localhost:8080"),
            new("A site that speaks TLS, for visitors that do not:", "vtunnel client --server wss://server.example.com/ --forward 8085=tls://www.example.com:443"),
            new("A domain of the server's proxy, with a credential that only this machine knows:", "vtunnel client --server ws://server.example.com:3001/ --forward api.example.com=localhost:8081 -H 'Authorization: Bearer …'"),
            new("With a token, which stays out of the list of processes:", "VTUNNEL_TOKEN=\"$(cat alice.token)\" vtunnel client --server wss://server.example.com/ --forward 9000=localhost:3000"),
            new("Everything in a file:", "vtunnel client --config client.yaml"),
        ],
        Run = RunAsync,
    };

    private static async Task<int> RunAsync(SettingsReader settings)
    {
        var options = ReadOptions(settings);
        var folder = TunnelSocket.ReadFolder(settings);
        var level = settings.One(CommonOptions.LogLevel, ValueParsers.Level, LogLevel.Information);
        var format = settings.One(CommonOptions.LogFormat, ValueParsers.Format, LogFormat.Text);
        if (options.ReconnectMin > options.ReconnectMax && options.ReconnectMax > TimeSpan.Zero)
            settings.Fault(ReconnectMin, DurationText.Format(options.ReconnectMin), $"must be at most {settings.LabelOf(ReconnectMax)}, which is {DurationText.Format(options.ReconnectMax)}");
        settings.Fault(TunnelClientOptionsValidator.Check(options));
        if (settings.SourceOf(Forward) is null || settings.IsEmpty(Forward))
            settings.Fault(Forward, null, "nothing to forward; give at least one, such as --forward 9000=localhost:3000");
        if (settings.Faults.Count > 0)
            return Terminal.Refuse(settings.Faults);

        using var interrupts = new Interrupts();
        var builder = Host.CreateEmptyApplicationBuilder(new HostApplicationBuilderSettings { ApplicationName = "vtunnel", DisableDefaults = true });
        Logging.Configure(builder.Logging, level, format);
        builder.Services.Configure<ConsoleLifetimeOptions>(lifetime => lifetime.SuppressStatusMessages = true);
        using var host = builder.Build();
        var loggers = host.Services.GetRequiredService<ILoggerFactory>();
        var logger = loggers.CreateLogger(typeof(ClientCommand).FullName!);
        if (options.ServerTls.Insecure)
            LogServerNotChecked(logger);
        if (options.TargetTls.Insecure)
            LogTargetsNotChecked(logger);

        await host.StartAsync();
        int exitCode;
        await using (var client = TunnelClient.Create(options with { Forwards = [] }, loggers))
        {
            await using var socket = await TunnelSocket.StartAsync(
                folder, TunnelSocket.Client, async () => new RunningClient(Environment.ProcessId, await client.GetStatusAsync()), logger);
            exitCode = await ForwardAsync(client, options, logger, interrupts.Stopping);

            // It may be asked while it lets connections finish.
            await client.DisposeAsync();
        }

        await host.StopAsync();
        return exitCode;
    }

    /// <summary>Keeps the forwards up until the program is told to stop (exit code 0) or cannot go on.</summary>
    private static async Task<int> ForwardAsync(TunnelClient client, TunnelClientOptions options, ILogger logger, CancellationToken stopping)
    {
        try
        {
            // All at once: the client knows its forwards from the beginning, also where it does not connect for long.
            await Task.WhenAll([client.ConnectAsync(stopping), .. options.Forwards.Select(rule => ListenAsync(client, rule, options.AutoReconnect, stopping))]);
            await client.Completion.WaitAsync(stopping);
            return ExitCodes.Success;
        }
        catch (OperationCanceledException) when (stopping.IsCancellationRequested)
        {
            return ExitCodes.Success;
        }
        catch (ListenRefusedException e)
        {
            LogListenRefused(logger, e.Rule.Domain is null ? $"port {e.Port}" : e.Rule.Source, e.Message);
            return ExitCodes.ListenRefused;
        }
        catch (TunnelConnectException e)
        {
            LogNotConnected(logger, options.Server!.GetLeftPart(UriPartial.Path), e.Message);
            return e.Code is ConnectError.Unauthorized or ConnectError.Forbidden ? ExitCodes.AccessRefused : ExitCodes.CannotConnect;
        }
    }

    private static async Task ListenAsync(TunnelClient client, ForwardRule rule, bool keepTrying, CancellationToken stopping)
    {
        try
        {
            await client.ListenAsync(rule, stopping);
        }
        catch (ListenRefusedException) when (keepTrying)
        {
            // The log has the reason; the other forwards go on, and the client asks for this one again.
        }
    }

    private static TunnelClientOptions ReadOptions(SettingsReader settings)
    {
        var defaults = new TunnelClientOptions();
        return new TunnelClientOptions
        {
            Server = settings.OneOrNull<Uri>(Server, ValueParsers.ServerUrl),
            Forwards = ReadForwards(settings),
            Headers = settings.Many<KeyValuePair<string, string>>(ServerHeader, ValueParsers.ServerHeader),
            Token = ReadToken(settings),
            Protocol = settings.One(CommonOptions.Protocol, ValueParsers.Protocol, defaults.Protocol),
            PingInterval = settings.One(PingInterval, ValueParsers.Duration, defaults.PingInterval),
            AutoReconnect = !settings.Switch(NoReconnect),
            ReconnectMin = settings.One(ReconnectMin, ValueParsers.Duration, defaults.ReconnectMin),
            ReconnectMax = settings.One(ReconnectMax, ValueParsers.Duration, defaults.ReconnectMax),
            StableAfter = settings.One(StableAfter, ValueParsers.Duration, defaults.StableAfter),
            ConnectTimeout = settings.One(ConnectTimeout, ValueParsers.Duration, defaults.ConnectTimeout),
            TargetConnectTimeout = settings.One(TargetConnectTimeout, ValueParsers.Duration, defaults.TargetConnectTimeout),
            DrainTimeout = settings.One(CommonOptions.DrainTimeout, ValueParsers.Duration, defaults.DrainTimeout),
            MaxStreams = settings.One(MaxStreams, ValueParsers.Count, defaults.MaxStreams),
            MaxMessageBytes = settings.One(CommonOptions.MaxMessageBytes, ValueParsers.Count, defaults.MaxMessageBytes),
            StreamBufferBytes = settings.One(CommonOptions.StreamBufferBytes, ValueParsers.Count, defaults.StreamBufferBytes),
            ResumeWindow = settings.One(CommonOptions.ResumeWindow, ValueParsers.Duration, defaults.ResumeWindow),
            MaxStreamWindowBytes = settings.One(CommonOptions.MaxStreamWindowBytes, ValueParsers.Count, defaults.MaxStreamWindowBytes),
            MaxSessionWindowBytes = settings.One(CommonOptions.MaxSessionWindowBytes, ValueParsers.Count, defaults.MaxSessionWindowBytes),
            ServerTls = new TlsTrustOptions
            {
                CertificateAuthorityFile = settings.Text(CertificateAuthority),
                Insecure = settings.Switch(Insecure),
            },
            TargetTls = new TlsTrustOptions
            {
                CertificateAuthorityFile = settings.Text(TargetCertificateAuthority),
                Insecure = settings.Switch(TargetInsecure),
            },
        };
    }

    /// <summary>The forwards, each with the headers that follow it.</summary>
    private static List<ForwardRule> ReadForwards(SettingsReader settings)
    {
        var forwards = new List<ForwardRule>();
        var headers = settings.SourceOf(Header) is null ? [] : settings.Placed(Header);
        if (headers.Count > 0 && settings.SourceOf(Forward) is not (null or SettingSource.CommandLine))
            settings.Fault(Header, null, "a header belongs to the forward before it; give the forwards on the command line, too");

        var placed = settings.Placed(Forward);
        if (headers.Any(header => placed.All(forward => forward.Place > header.Place)) && settings.SourceOf(Forward) == SettingSource.CommandLine)
            settings.Fault(Header, null, "a header belongs to the forward before it; there is none before this one");
        var read = headers.Select((header, index) => (header.Place, Headers: ReadHeader(settings, header.Text, SettingsReader.Number(index, headers.Count)))).ToList();
        for (var i = 0; i < placed.Count; i++)
        {
            var end = i + 1 < placed.Count ? placed[i + 1].Place : int.MaxValue;
            var own = read.Where(header => header.Place > placed[i].Place && header.Place < end).SelectMany(header => header.Headers).ToList();
            if (settings.TryParse<ForwardRule>(Forward, placed[i].Text, ValueParsers.Forward, out var rule))
                forwards.Add(own.Count == 0 ? rule : rule with { Headers = own });
        }

        return forwards;
    }

    /// <summary>One header, or those of a file. A fault says where it stands, since neither line nor value may be repeated.</summary>
    private static List<InjectedHeader> ReadHeader(SettingsReader settings, string text, string number)
    {
        var headers = new List<InjectedHeader>();
        if (!text.StartsWith('@'))
        {
            Read(text, number);
            return headers;
        }

        try
        {
            var lines = File.ReadAllLines(text[1..]);
            for (var i = 0; i < lines.Length; i++)
            {
                if (lines[i].Trim().Length > 0)
                    Read(lines[i], $" {text} (line {i + 1})");
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            settings.FaultAt(Header, $" {text}", OptionRules.FileProblem(text[1..], e));
        }

        return headers;

        void Read(string line, string place)
        {
            if (ValueParsers.InjectedHeader(line, out var header, out var problem))
                headers.Add(header);
            else
                settings.FaultAt(Header, place, problem);
        }
    }

    /// <summary>The token from the higher of its two sources.</summary>
    private static Secret? ReadToken(SettingsReader settings)
    {
        var (plain, file) = (settings.SourceOf(Token), settings.SourceOf(TokenFromFile));
        if (plain is not null && plain == file)
        {
            settings.Fault(TokenFromFile, null, $"the token is given as {settings.LabelOf(Token)}, too; give one of the two");
            return null;
        }

        if (file is null || plain > file)
            return settings.OneOrNull<Secret>(Token, ValueParsers.Token);
        if (settings.Text(TokenFromFile) is not { } path)
            return null;
        try
        {
            if (ValueParsers.Token(File.ReadAllText(path).Trim(), out var token, out var problem))
                return token;
            settings.Fault(TokenFromFile, path, $"the file must hold one token and nothing else; {problem}");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            settings.Fault(TokenFromFile, path, OptionRules.FileProblem(path, e));
        }

        return null;
    }

    [LoggerMessage(9101, LogLevel.Warning, "The server's certificate is not checked (--insecure): whoever is on the way can read and change everything")]
    private static partial void LogServerNotChecked(ILogger logger);

    [LoggerMessage(9102, LogLevel.Warning, "The certificates of targets are not checked (--target-insecure): whoever is on the way can read and change everything")]
    private static partial void LogTargetsNotChecked(ILogger logger);

    [LoggerMessage(9103, LogLevel.Critical, "The server refuses to listen on {Source}, and reconnecting is off: {Reason}")]
    private static partial void LogListenRefused(ILogger logger, string source, string reason);

    [LoggerMessage(9104, LogLevel.Critical, "No connection to {Server}, and reconnecting is off: {Reason}")]
    private static partial void LogNotConnected(ILogger logger, string server, string reason);
}
