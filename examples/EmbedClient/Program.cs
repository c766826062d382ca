// A tunnel client inside an application of your own: EmbedClient URL FORWARD, e.g.
//
//   dotnet run --project examples/EmbedClient ws://localhost:5000/tunnel 9000=localhost:3000
using System.Runtime.InteropServices;
using VTunnel.Hosting;
using VTunnel.Options;
using VTunnel.Routing;

if (args.Length != 2 || !Uri.TryCreate(args[0], UriKind.Absolute, out var server) || !ForwardRule.TryParse(args[1], out var rule, out _))
{
    Console.Error.WriteLine("usage: EmbedClient URL PORT=HOST:PORT, e.g. ws://localhost:5000/tunnel 9000=localhost:3000");
    return 2;
}

using var stopping = new CancellationTokenSource();
using var interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, Interrupt);
using var terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Interrupt);

await using var client = TunnelClient.Create(new TunnelClientOptions { Server = server, AutoReconnect = true });
client.StateChanged += (_, change) => Console.WriteLine($"{change.State} {change.Reason}".TrimEnd());
try
{
    await client.ConnectAsync(stopping.Token);
    await client.ListenAsync(rule, stopping.Token);
    Console.WriteLine($"Port {rule.RemotePort} of the server leads to {rule.Target}; Ctrl-C ends.");
    await client.Completion.WaitAsync(stopping.Token);
    return 0;
}
catch (OperationCanceledException) when (stopping.IsCancellationRequested)
{
    return 0;
}
catch (ListenRefusedException e)
{
    Console.Error.WriteLine($"The server does not listen on port {e.Port}: {e.Message}");
    return 1;
}

void Interrupt(PosixSignalContext context)
{
    // Not the runtime's own end: the client lets connections finish first.
    context.Cancel = true;
    stopping.Cancel();
}
