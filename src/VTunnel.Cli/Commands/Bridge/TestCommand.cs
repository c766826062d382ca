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
using VTunnel.Protocol.Bridge;

namespace VTunnel.Cli.Commands.Bridge;

/// <summary><c>vtunnel test</c>.</summary>
internal static class TestCommand
{
    public static readonly CommandSpec Spec = new("test", "Find out step by step what works: name, TCP, TLS, relay, publisher, each granted target.")
    {
        Details = "The exit code is 0 if every step works, else 9.",
        Options = [BridgeCli.Context, BridgeCli.StateDir],
        Examples = [new("", "vtunnel test")],
        Run = RunAsync,
    };

    private static Task<int> RunAsync(SettingsReader settings) => BridgeCli.RunAsync(settings, async () =>
    {
        var state = BridgeCli.State(settings);
        var named = settings.Text(BridgeCli.Context);
        if (state.ContextNames.Count == 0 && state.HasRelay)
            throw new BridgeException(BridgeError.Invalid, $"{state.Path} is a relay's state, and this is for publishers and consumers; 'vtunnel status' and 'vtunnel relay list' say how the relay is");
        var name = named ?? (state.CurrentContext is { } current && state.ContextNames.Contains(current) ? current
            : state.ContextNames is [var only] ? only
            : state.Resolve(ContextKind.Consumer, null));
        var context = state.Load(name);
        using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        try
        {
            await TestRelayAsync(state, name, context, deadline.Token);
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

    private static async Task TestRelayAsync(StateDirectory state, string name, BridgeContext context, CancellationToken cancellationToken)
    {
        var host = context.Relay.IdnHost;
        IPAddress[] addresses;
        try
        {
            addresses = await Dns.GetHostAddressesAsync(host, cancellationToken);
            Passed("name", $"{host} is {string.Join(", ", addresses.Select(address => address.ToString()))}");
        }
        catch (SocketException e)
        {
            throw new StepFailedException("name", $"{host}: {e.Message}", "Check this machine's DNS, and the relay's address with its operator.");
        }

        using var socket = new TcpClient();
        try
        {
            await socket.ConnectAsync(addresses, context.Relay.Port, cancellationToken);
            var found = (IPEndPoint)socket.Client.RemoteEndPoint!;
            Passed("TCP", $"{(found.Address.IsIPv4MappedToIPv6 ? new IPEndPoint(found.Address.MapToIPv4(), found.Port) : found)}");
        }
        catch (SocketException e)
        {
            throw new StepFailedException("TCP", $"{host}:{context.Relay.Port}: {e.Message}", "Check that a firewall lets this machine dial out to it, and that the relay runs.");
        }

        if (context.Relay.Scheme is "wss" or "https")
        {
            await using var tls = new SslStream(socket.GetStream());
            try
            {
                // What the certificate is worth is seen to in the next step, with the authorities of this identity.
#pragma warning disable CA5359
                await tls.AuthenticateAsClientAsync(
                    new SslClientAuthenticationOptions { TargetHost = host, RemoteCertificateValidationCallback = static (_, _, _, _) => true }, cancellationToken);
#pragma warning restore CA5359
                Passed("TLS", $"{tls.SslProtocol}, {tls.RemoteCertificate?.Subject}");
            }
            catch (Exception e) when (e is AuthenticationException or IOException)
            {
                throw new StepFailedException("TLS", e.Message, "Check that a relay listens there, and that nothing on the way breaks TLS open.");
            }
        }

        using var certificate = context.Kind == ContextKind.Publisher ? null : state.LoadUser(name);
        using var identity = context.Kind == ContextKind.Publisher ? state.LoadPublisher(name) : null;
        using var dialer = new RelayDialer(
            state.Relay(name), context.Publisher, certificate ?? identity!.Certificate, TimeSpan.FromSeconds(15), TimeProvider.System);
        try
        {
            // A publisher that runs must not be displaced: an answer to nobody is admitted all the same.
            using var connection = await dialer.DialAsync(identity is null ? AdmissionKind.Consume : AdmissionKind.Answer, identity is null ? null : "test", cancellationToken);
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
        using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(45));
        var ended = consumer.WaitForEndAsync(deadline.Token);
        var found = await consumer.WaitForProbeAsync(deadline.Token);
        if (ended.IsCompletedSuccessfully && await ended is { } reason)
            throw new StepFailedException("publisher", reason, "Ask the publisher for access.");
        RequireProbe(found);
        await TestGrantsAsync(state.Load(name).Grants ?? [], consumer.CheckAsync);
    }

    private static void RequireProbe(ConsumerState state)
    {
        if (!state.IsConnected)
        {
            throw new StepFailedException(
                "publisher", state.Problem ?? "not connected", "Ask the publisher whether 'vtunnel serve' runs and is connected (vtunnel status), and whether you are admitted (vtunnel show user).");
        }

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
