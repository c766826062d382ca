using System.Diagnostics;
using System.Globalization;
using Akka.Actor;
using VTunnel.Hosting;
using VTunnel.Options;
using VTunnel.Routing;
using VTunnel.Carriers;

namespace VTunnel.Bench.Load;

/// <summary>Many clients of one server, each with a session and a forward of its own. They live in the bench: only what they cost the server is of interest.</summary>
internal sealed class ManySessions : IDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(1);

    private readonly ActorSystem _system = ActorSystem.Create("bench-clients", EngineConfiguration.Own);
    private readonly TunnelClient[] _clients;

    /// <summary>Connects them all at once.</summary>
    /// <param name="serverPort">The server, on 127.0.0.1.</param>
    /// <param name="protocol"><c>v1</c> or <c>v2</c>.</param>
    /// <param name="targetPort">Where all forwards lead, on 127.0.0.1.</param>
    /// <param name="ports">The ports that the sessions ask for, one each.</param>
    public ManySessions(int serverPort, string protocol, int targetPort, IReadOnlyList<int> ports)
    {
        _clients = [.. ports.Select(_ => TunnelClient.Create(_system, new TunnelClientOptions
        {
            Server = new Uri(string.Create(CultureInfo.InvariantCulture, $"ws://127.0.0.1:{serverPort}/")),
            Protocol = protocol == "v1" ? ProtocolPreference.V1 : ProtocolPreference.V2,
            ConnectTimeout = Patience,
        }))];
        try
        {
            var started = Stopwatch.GetTimestamp();
            using var patience = new CancellationTokenSource(Patience);
            Task.WhenAll(_clients.Select((client, i) => ConnectAsync(client, ports[i], targetPort, patience.Token))).GetAwaiter().GetResult();
            TimeToConnect = Stopwatch.GetElapsedTime(started);
        }
        catch (Exception e) when (e is TunnelConnectException or ListenRefusedException or OperationCanceledException)
        {
            Dispose();
            throw new BenchException($"{ports.Count} sessions: {e.Message}", e);
        }
    }

    /// <summary>Until all had their ports.</summary>
    public TimeSpan TimeToConnect { get; }

    public void Dispose() => _system.Terminate().Wait(Patience);

    private static async Task ConnectAsync(TunnelClient client, int port, int targetPort, CancellationToken cancellationToken)
    {
        await client.ConnectAsync(cancellationToken);
        await client.ListenAsync(ForwardRule.Parse(string.Create(CultureInfo.InvariantCulture, $"{port}=127.0.0.1:{targetPort}")), cancellationToken);
    }
}
