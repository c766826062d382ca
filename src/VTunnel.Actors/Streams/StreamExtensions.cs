using Akka.Actor;

namespace VTunnel.Streams;

/// <summary>
/// Puts something into the path of every stream, e.g. a limit or a recorder: it is given each endpoint before the pump
/// is, and gives back the endpoint to use instead (or the same).
/// </summary>
public interface IStreamMiddleware
{
    /// <summary>Wraps an endpoint. Called once per stream, on the stream actor; must not block.</summary>
    StreamEndpoint Wrap(StreamEndpoint endpoint, StreamInfo stream);
}

/// <summary>What a stream is for.</summary>
/// <param name="Session">The name of its session.</param>
/// <param name="Identity">The name of the session's token; null where none was asked for.</param>
/// <param name="Port">The listened port.</param>
/// <param name="Remote">The visitor's address, where known.</param>
public sealed record StreamInfo(string Session, string? Identity, int Port, string? Remote);

/// <summary>
/// The questions to an authoriser, an actor that decides on listens and connects. It answers each with
/// <see cref="Allowed"/> or <see cref="Denied"/>; no answer within 5 seconds denies.
/// </summary>
public static class AuthorizationProtocol
{
    /// <summary>How long an authoriser may take.</summary>
    public static readonly TimeSpan Timeout = TimeSpan.FromSeconds(5);

    /// <summary>May this session listen on this port?</summary>
    public sealed record AuthorizeListen(string Session, string? Identity, string Remote, int Port, string? LocalAddr);

    /// <summary>May this visitor be carried?</summary>
    public sealed record AuthorizeConnect(StreamInfo Stream);

    /// <summary>What an authoriser answers.</summary>
    public abstract record Decision;

    /// <summary>Yes.</summary>
    public sealed record Allowed : Decision
    {
        /// <summary>The one instance.</summary>
        public static readonly Allowed Instance = new();
    }

    /// <summary>No; the reason is logged, and told to the client for a listen.</summary>
    public sealed record Denied(string Reason) : Decision;

    /// <summary>Asks, and turns silence and failure into a denial.</summary>
    internal static async Task<Decision> DecideAsync(IActorRef authorizer, object question)
    {
        try
        {
            return await authorizer.Ask<Decision>(question, Timeout).ConfigureAwait(false);
        }
        catch (Exception e) when (e is AskTimeoutException or TaskCanceledException)
        {
            return new Denied($"the authoriser did not answer within {Timeout}");
        }
    }
}

/// <summary>What others have added to the engine.</summary>
/// <param name="Authorizer">Decides on listens and connects; null allows what the options allow.</param>
/// <param name="Middleware">Applied to every stream in this order, the first closest to the socket.</param>
public sealed record TunnelExtensions(IActorRef? Authorizer, IReadOnlyList<IStreamMiddleware> Middleware)
{
    /// <summary>Nothing added.</summary>
    public static readonly TunnelExtensions None = new(null, []);

    internal StreamEndpoint Wrap(StreamEndpoint endpoint, StreamInfo stream) =>
        Middleware.Aggregate(endpoint, (inner, middleware) => middleware.Wrap(inner, stream));
}
