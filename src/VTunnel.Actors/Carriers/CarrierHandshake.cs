using System.Net.WebSockets;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Link;

namespace VTunnel.Carriers;

/// <summary>The server's first step on a v2 carrier, before it is known which session it is for.</summary>
internal static class CarrierHandshake
{
    private const int MaxHelloBytes = 8 * 1024;
    private static readonly TimeSpan RefusalTimeout = TimeSpan.FromSeconds(2);

    /// <summary>
    /// Reads what the client says first. Null when that is nothing useful: the carrier is closed then, with a word of why
    /// where the client can understand it.
    /// </summary>
    public static async Task<LinkHello?> ReadHelloAsync(ICarrier carrier, TimeSpan timeout, TimeProvider clock)
    {
        using var deadline = new CancellationTokenSource(timeout, clock);
        await using var abort = deadline.Token.Register(carrier.Abort).ConfigureAwait(false);
        var buffer = ByteChunk.Rent(MaxHelloBytes);
        try
        {
            var length = 0;
            while (true)
            {
                var received = await carrier.ReceiveAsync(buffer.Array.AsMemory(length)).ConfigureAwait(false);
                if (received.MessageType != WebSocketMessageType.Binary)
                    break;
                length += received.Count;
                if (received.EndOfMessage)
                {
                    if (LinkAcceptor.TryRead(buffer.Array.AsSpan(0, length), [], out var hello, out var refusal))
                        return hello;
                    await RefuseAsync(carrier, refusal).ConfigureAwait(false);
                    return null;
                }

                if (length == buffer.Array.Length)
                    break;
            }
        }
        catch (WebSocketException)
        {
            // What was wrong with its frames has been told, and leaves in order.
            await carrier.DisposeAsync().ConfigureAwait(false);
            return null;
        }
        catch (Exception e) when (e is IOException or OperationCanceledException or ObjectDisposedException or InvalidOperationException or SessionProtocolException)
        {
            // The client left, said nothing in time, or began with more than any message may have.
        }
        catch
        {
            // A fault of ours is for whoever hosts this to log, and no reason to keep the connection.
            await DropAsync(carrier).ConfigureAwait(false);
            throw;
        }
        finally
        {
            buffer.Release();
        }

        await DropAsync(carrier).ConfigureAwait(false);
        return null;
    }

    private static ValueTask DropAsync(ICarrier carrier)
    {
        carrier.Abort();
        return carrier.DisposeAsync();
    }

    /// <summary>Says why this carrier will not be used and closes it. Never throws.</summary>
    public static async Task RefuseAsync(ICarrier carrier, LinkRefusal refusal)
    {
        using var deadline = new CancellationTokenSource(RefusalTimeout);
        await using var abort = deadline.Token.Register(carrier.Abort).ConfigureAwait(false);
        var message = refusal.ToMessage();
        try
        {
            if (carrier.SpeaksV2)
            {
                await carrier.SendAsync(message.Memory, WebSocketMessageType.Binary).ConfigureAwait(false);
                await carrier.CloseAsync(WebSocketCloseStatus.PolicyViolation, refusal.Code.ToString()).ConfigureAwait(false);
            }
            else
            {
                // Protocol v1 has no words for it, and no binary messages: the close frame says it all.
                await carrier.CloseAsync(WebSocketCloseStatus.EndpointUnavailable, refusal.Text).ConfigureAwait(false);
            }
        }
        catch (Exception e) when (e is WebSocketException or IOException or OperationCanceledException or ObjectDisposedException or InvalidOperationException)
        {
            // It is gone already.
        }
        finally
        {
            message.Release();
            await carrier.DisposeAsync().ConfigureAwait(false);
        }
    }
}
