using System.Net;
using System.Net.Sockets;
using Microsoft.AspNetCore.Http;
using VTunnel.Endpoints;
using VTunnel.Options;
using VTunnel.Routing;
using VTunnel.Web;

namespace VTunnel.Proxy;

/// <summary>
/// Connects from the server itself, where that is allowed. A name is resolved once, each address is checked, and what is dialled
/// is a checked address: a name cannot mean something else the second time.
/// </summary>
/// <param name="options">What is allowed.</param>
/// <param name="timeProvider">The clock of timeouts.</param>
/// <param name="lookUp">Finds the addresses of a name; the system's resolver unless a test has one.</param>
internal sealed class DirectConnector(ProxyOptions options, TimeProvider timeProvider, Func<string, CancellationToken, Task<IPAddress[]>>? lookUp = null)
{
    private readonly Func<string, CancellationToken, Task<IPAddress[]>> _lookUp = lookUp ?? LookUpAsync;

    private readonly Dictionary<string, IPAddress[]> _addresses = options.Addresses
        .GroupBy(entry => entry.Host, StringComparer.Ordinal)
        .ToDictionary(group => group.Key, group => group.Select(entry => entry.Address).ToArray(), StringComparer.Ordinal);

    /// <summary>Look-ups under way, however long the system's resolver takes and whether or not anybody still waits.</summary>
    private static readonly SemaphoreSlim LookUps = new(32);

    /// <summary>
    /// Asks the system's resolver on a thread made for it: it has no way of asking that does not keep one, on Linux, and names whose
    /// servers do not answer would keep the pool's, which everything else runs on.
    /// </summary>
    private static async Task<IPAddress[]> LookUpAsync(string host, CancellationToken cancellationToken)
    {
        await LookUps.WaitAsync(cancellationToken).ConfigureAwait(false);
        var looking = Task.Factory.StartNew(
            () =>
            {
                try
                {
                    return Dns.GetHostAddresses(host);
                }
                finally
                {
                    LookUps.Release();
                }
            },
            CancellationToken.None,
            TaskCreationOptions.LongRunning | TaskCreationOptions.DenyChildAttach,
            TaskScheduler.Default);

        // Nobody may wait for it any more when it fails.
        _ = looking.ContinueWith(task => _ = task.Exception, CancellationToken.None, TaskContinuationOptions.OnlyOnFaulted, TaskScheduler.Default);
        return await looking.WaitAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Connects to a host.</summary>
    /// <param name="host">Normalised.</param>
    /// <param name="port">1 to 65535.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="LegFailedException">It is not allowed, or it cannot be reached.</exception>
    public async Task<Socket> ConnectAsync(string host, int port, CancellationToken cancellationToken)
    {
        var named = options.Allowed.Any(pattern => pattern.Kind == HostPatternKind.Exact && pattern.Matches(host, port));
        if (!options.AllowDirect && !named && !options.Allowed.Any(pattern => pattern.Matches(host, port)))
            throw new LegFailedException(StatusCodes.Status403Forbidden, $"no client forwards {HostName.Bracketed(host)}:{port}, and the proxy's policy allows nothing else");

        using var timeout = new CancellationTokenSource(options.ConnectTimeout, timeProvider);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, timeout.Token);
        var leg = $"looking up {host}";
        try
        {
            var addresses = await ResolveAsync(host, port, named, either.Token).ConfigureAwait(false);
            leg = $"connecting to {HostName.Bracketed(host)}:{port}";
            return await DialAsync(host, port, addresses, either.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException e) when (!cancellationToken.IsCancellationRequested)
        {
            throw new LegFailedException(
                StatusCodes.Status504GatewayTimeout, $"{leg} took longer than {options.ConnectTimeout.TotalSeconds:0.###} s", e);
        }
    }

    private async Task<IReadOnlyList<IPAddress>> ResolveAsync(string host, int port, bool named, CancellationToken cancellationToken)
    {
        // What the operator has written down himself needs no check.
        if (_addresses.TryGetValue(host, out var known))
            return known;

        IPAddress[] found;
        try
        {
            found = HostName.AddressOf(host) is { } literal ? [literal] : await _lookUp(host, cancellationToken).ConfigureAwait(false);
        }
        catch (SocketException e)
        {
            throw new LegFailedException(StatusCodes.Status502BadGateway, $"the name '{host}' was not found", e);
        }

        if (named)
            return found;
        var allowed = found.Where(address => AddressGuard.Reason(address) is null).ToList();
        if (allowed.Count == 0 && found.Length > 0)
        {
            throw new LegFailedException(
                StatusCodes.Status403Forbidden,
                $"{HostName.Bracketed(host)}:{port} is {AddressGuard.Reason(found[0])}, which the proxy does not connect to");
        }

        return allowed;
    }

    private static async Task<Socket> DialAsync(string host, int port, IReadOnlyList<IPAddress> addresses, CancellationToken cancellationToken)
    {
        SocketException? last = null;
        foreach (var address in addresses)
        {
            var socket = new Socket(address.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
            try
            {
                await socket.ConnectAsync(new IPEndPoint(address, port), cancellationToken).ConfigureAwait(false);
                SocketSettings.Apply(socket);
                return socket;
            }
            catch (SocketException e)
            {
                socket.Dispose();
                last = e;
            }
            catch
            {
                socket.Dispose();
                throw;
            }
        }

        var reason = last?.SocketErrorCode switch
        {
            null => "the name has no address",
            SocketError.ConnectionRefused => "connection refused",
            SocketError.TimedOut => "connecting timed out",
            _ => last.Message,
        };
        throw new LegFailedException(StatusCodes.Status502BadGateway, $"cannot reach {HostName.Bracketed(host)}:{port}: {reason}", last);
    }
}
