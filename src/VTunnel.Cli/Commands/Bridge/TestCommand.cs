using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using VTunnel.Bridge;
using VTunnel.Bridge.Consuming;
using VTunnel.Bridge.Identity;
using VTunnel.Bridge.Publishing;
using VTunnel.Bridge.State;
using VTunnel.Bridge.Wire;
using VTunnel.Carriers;
using VTunnel.Cli.Hosting;
using VTunnel.Cli.Settings;
using VTunnel.Cli.Syntax;
using VTunnel.Hosting;
using VTunnel.Options;
using VTunnel.Protocol.Bridge;

namespace VTunnel.Cli.Commands.Bridge;

/// <summary><c>vtunnel test</c>.</summary>
internal static class TestCommand
{
    public static readonly CommandSpec Spec = new("test", "Find out step by step what works: name, TCP, TLS, relay, publisher, each granted target.")
    {
        Details = "Where the environment names a proxy for the relay, it is named in place of the first three. The exit code is 0 if every step works, else 9.",
        Options = [BridgeCli.Context, BridgeCli.StateDir],
        Examples = [new("", "vtunnel test")],
        Run = RunAsync,
    };

    private const string AskPublisher =
        "Ask the publisher whether 'vtunnel serve' runs and is connected (vtunnel status), and whether you are admitted (vtunnel show user).";

    private static readonly TimeSpan StepTimeout = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan SessionTimeout = TimeSpan.FromSeconds(45);

    private static Task<int> RunAsync(SettingsReader settings) => BridgeCli.RunAsync(settings, async () =>
    {
        var state = BridgeCli.State(settings);
        var named = settings.Text(BridgeCli.Context);
        if (state.ContextNames.Count == 0 && state.HasRelay)
            throw new BridgeException(BridgeError.Invalid, $"{state.Path} is a relay's state, and this is for publishers and consumers; 'vtunnel status' and 'vtunnel relay list' say how the relay is");
        var name = named ?? (state.CurrentContext is { } current && state.ContextNames.Contains(current) ? current
            : state.ContextNames is [var only] ? only
            : state.ContextNames.Count == 0 ? state.Resolve(ContextKind.Consumer, null)
            : throw new BridgeException(BridgeError.Invalid, $"there are several: {string.Join(", ", state.ContextNames)}; choose one with {BridgeCli.Context.LongName} NAME, or with 'vtunnel config use-context NAME'"));
        var context = state.Load(name);
        try
        {
            await TestRelayAsync(state, name, context);
            if (context.Kind == ContextKind.Publisher)
                await TestPublisherAsync(state, name);
            else
                await TestConsumerAsync(state, name);
            return ExitCodes.Success;
        }
        catch (StepFailedException e)
        {
            Console.Out.WriteLine($"FAILED  {e.Step}: {OneLine.Of(e.Message)}");
            Console.Out.WriteLine($"        {e.Remedy}");
            return ExitCodes.NotHealthy;
        }
    });

    private static void Passed(string step, string detail) => Console.Out.WriteLine($"ok      {step}: {OneLine.Of(detail)}");

    /// <summary>One step, which may take <see cref="StepTimeout"/>: a firewall that drops packets says nothing for minutes.</summary>
    /// <param name="step">What it is called.</param>
    /// <param name="what">What is tried.</param>
    /// <param name="remedy">What to do where it fails.</param>
    /// <param name="work">Tries it, and gives what was found.</param>
    private static async Task StepAsync(string step, string what, string remedy, Func<CancellationToken, Task<string>> work)
    {
        using var deadline = new CancellationTokenSource(StepTimeout);
        try
        {
            Passed(step, await work(deadline.Token));
        }
        catch (Exception e) when (e is SocketException or AuthenticationException or IOException)
        {
            throw new StepFailedException(step, $"{what}: {e.Message}", remedy);
        }
        catch (OperationCanceledException) when (deadline.IsCancellationRequested)
        {
            throw new StepFailedException(step, $"{what}: no answer within {DurationText.Format(StepTimeout)}", remedy);
        }
    }

    private static async Task TestRelayAsync(StateDirectory state, string name, BridgeContext context)
    {
        if (ProxyFor(context.Relay) is { } proxy)
            Passed("proxy", $"{proxy.Host}:{proxy.Port} is asked to connect to {context.Relay.IdnHost}:{context.Relay.Port}, as https_proxy or http_proxy says");
        else
            await TestWayAsync(context);
        await TestAdmissionAsync(state, name, context);
    }

    /// <summary>The proxy by which the relay is dialled, as the environment says.</summary>
    private static Uri? ProxyFor(Uri relay)
    {
        var url = new UriBuilder(relay) { Scheme = relay.Scheme is "wss" or "https" ? Uri.UriSchemeHttps : Uri.UriSchemeHttp }.Uri;
        return HttpClient.DefaultProxy.IsBypassed(url) ? null : HttpClient.DefaultProxy.GetProxy(url);
    }

    private static async Task TestWayAsync(BridgeContext context)
    {
        var host = context.Relay.IdnHost;
        var place = $"{host}:{context.Relay.Port}";
        IPAddress[] addresses = [];
        await StepAsync("name", host, "Check this machine's DNS, and the relay's address with its operator.", async cancellation =>
        {
            addresses = await Dns.GetHostAddressesAsync(host, cancellation);
            return $"{host} is {string.Join(", ", addresses.Select(address => address.ToString()))}";
        });

        using var socket = new TcpClient();
        await StepAsync("TCP", place, "Check that a firewall lets this machine dial out to it, and that the relay runs.", async cancellation =>
        {
            await socket.ConnectAsync(addresses, context.Relay.Port, cancellation);
            var found = (IPEndPoint)socket.Client.RemoteEndPoint!;
            return $"{(found.Address.IsIPv4MappedToIPv6 ? new IPEndPoint(found.Address.MapToIPv4(), found.Port) : found)}";
        });

        if (context.Relay.Scheme is "wss" or "https")
        {
            await using var tls = new SslStream(socket.GetStream());
            await StepAsync("TLS", place, "Check that a relay listens there, and that nothing on the way breaks TLS open.", async cancellation =>
            {
                // What the certificate is worth is seen to in the next step, with the authorities of this identity.
#pragma warning disable CA5359
                await tls.AuthenticateAsClientAsync(
                    new SslClientAuthenticationOptions { TargetHost = host, RemoteCertificateValidationCallback = static (_, _, _, _) => true }, cancellation);
#pragma warning restore CA5359
                return $"{tls.SslProtocol}, {tls.RemoteCertificate?.Subject}";
            });
        }
    }

    private static async Task TestAdmissionAsync(StateDirectory state, string name, BridgeContext context)
    {
        using var certificate = context.Kind == ContextKind.Publisher ? null : state.LoadUser(name);
        using var identity = context.Kind == ContextKind.Publisher ? state.LoadPublisher(name) : null;
        using var dialer = new RelayDialer(
            state.Relay(name), context.Publisher, certificate ?? identity!.Certificate, TimeSpan.FromSeconds(15), TimeProvider.System);
        try
        {
            // A publisher that runs must not be displaced: an answer to nobody is admitted all the same.
            using var connection = await dialer.DialAsync(identity is null ? AdmissionKind.Consume : AdmissionKind.Answer, identity is null ? null : "test", CancellationToken.None);
            connection.Abort();
            Passed("relay", $"it admits {context.User ?? "this publisher"}{(dialer.Skew == TimeSpan.Zero ? "" : $"; this machine's clock is {dialer.Skew.Duration().TotalSeconds:0} s {(dialer.Skew > TimeSpan.Zero ? "behind" : "ahead")}")}");
        }
        catch (TunnelConnectException e)
        {
            throw new StepFailedException("relay", e.Message, e.Code switch
            {
                ConnectError.TlsFailed => "Check the relay's certificate; if it has an authority of its own, join again with --ca FILE, or import a new bundle.",
                ConnectError.Forbidden => context.Kind == ContextKind.Publisher
                    ? $"Ask the relay's operator whether this publisher is still enrolled (vtunnel relay list); if not, enrol its key again with a new code: vtunnel join {context.Relay} CODE --context {name}"
                    : "Ask the publisher whether it is still enrolled at the relay, and for a new bundle.",
                _ => "Check the URL and that the relay runs.",
            });
        }
    }

    private static async Task TestPublisherAsync(StateDirectory state, string name)
    {
        var publisher = await ControlSocket.AskAsync<PublisherState>(state.SocketPath(name), "status");
        if (publisher is null)
            throw new StepFailedException("publisher", "it is not running", $"Start it: vtunnel serve --context {name}");
        if (!publisher.IsConnected)
            throw new StepFailedException("publisher", publisher.Problem ?? "not connected", "It tries again by itself; its log has the details.");
        Passed("publisher", $"running and connected; {publisher.Users.Count} sessions, {publisher.UserCount} users");
        using var store = state.OpenPublisherStore(name);
        var failed = 0;
        foreach (var target in store.ListUsers().SelectMany(user => user.Grants).DistinctBy(grant => grant.Target))
        {
            try
            {
                using var socket = new TcpClient();
                using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(10));
                await socket.ConnectAsync(target.Host, target.Port, deadline.Token);
                Passed("target", target.Target);
            }
            catch (Exception e) when (e is SocketException or OperationCanceledException)
            {
                failed++;
                Console.Out.WriteLine($"FAILED  target: {target.Target}: {OneLine.Of(e.Message)}");
            }
        }

        if (failed > 0)
            throw new StepFailedException("targets", $"{failed} cannot be reached", "Check that these services run and accept connections from this machine.");
    }

    private static async Task TestConsumerAsync(StateDirectory state, string name)
    {
        var path = state.SocketPath(name);
        var running = await ControlSocket.AskAsync<ConsumerState>(path, "status");
        if (running is not null)
        {
            RequireProbe(running);
            var open = running.Ports.Select(port => BridgeCli.Mapping($"{port.Port}:{port.Target}", out var grant, out _) ? grant : null).OfType<BridgeGrant>().ToList();
            await TestGrantsAsync(open, async grant => (await ControlSocket.AskAsync<CheckAnswer>(path, "check", grant.ToString()))?.Problem);
            return;
        }

        await using var consumer = BridgeConsumer.CreateProbe(state, name);
        await consumer.StartAsync();
        using var deadline = new CancellationTokenSource(SessionTimeout);
        var ended = consumer.WaitForEndAsync(deadline.Token);
        ConsumerState found;
        try
        {
            found = await consumer.WaitForProbeAsync(deadline.Token);
        }
        catch (OperationCanceledException) when (deadline.IsCancellationRequested)
        {
            throw new StepFailedException("publisher", $"no answer within {DurationText.Format(SessionTimeout)}", AskPublisher);
        }

        if (ended.IsCompletedSuccessfully && await ended is { } reason)
            throw new StepFailedException("publisher", reason, "Ask the publisher for access.");
        RequireProbe(found);
        await TestGrantsAsync(state.Load(name).Grants ?? [], consumer.CheckAsync);
    }

    private static void RequireProbe(ConsumerState state)
    {
        if (!state.IsConnected)
            throw new StepFailedException("publisher", state.Problem ?? "not connected", AskPublisher);

        Passed("publisher", $"{state.Publisher} answered end to end in {state.ProbeTook!.Value.TotalMilliseconds:0.#} ms");
    }

    private static async Task TestGrantsAsync(IReadOnlyList<BridgeGrant> grants, Func<BridgeGrant, Task<string?>> check)
    {
        var failed = 0;
        foreach (var grant in grants)
        {
            var problem = await check(grant);
            if (problem is null)
            {
                Passed("target", $"{grant.Target} (local port {grant.Local})");
                continue;
            }

            failed++;
            Console.Out.WriteLine($"FAILED  target: {OneLine.Of($"{grant.Target} (local port {grant.Local}): {problem}")}");
        }

        if (failed > 0)
            throw new StepFailedException("targets", $"{failed} cannot be reached by the publisher", "Ask the publisher whether these services run, and whether they are granted to you.");
    }

    private sealed class StepFailedException(string step, string message, string remedy) : Exception(message)
    {
        public string Step { get; } = step;

        public string Remedy { get; } = remedy;
    }
}
