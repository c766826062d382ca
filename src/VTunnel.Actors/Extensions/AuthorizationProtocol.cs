using Akka.Actor;

namespace VTunnel.Extensions;

/// <summary>
/// The questions to an authoriser, an actor that decides on listens and connects. It answers each with
/// <see cref="Allowed"/> or <see cref="Denied"/>; no answer within 5 seconds denies.
/// </summary>
public static class AuthorizationProtocol
{
    /// <summary>How long an authoriser may take.</summary>
    public static readonly TimeSpan Timeout = TimeSpan.FromSeconds(5);

    /// <summary>May this session listen on this port?</summary>
    public sealed record AuthorizeListen(string Session, string? Identity, string Remote, int Port, string? LocalAddr)
    {
        /// <summary>The domain that the server's proxy would route here; null where it is about a port. <c>Port</c> is above 65535 then.</summary>
        public string? Domain { get; init; }
    }

    /// <summary>
    /// May this visitor be carried? Asked for each visitor of a port, and for each visitor of the server's proxy once for each
    /// host that he asks for.
    /// </summary>
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
        catch (AskTimeoutException)
        {
            return new Denied($"the authoriser did not answer within {Timeout.TotalSeconds:0} s");
        }
        catch (Exception e)
        {
            // It answered with something else, or with a failure of its own: no permission either way.
            return new Denied($"the authoriser failed: {e.Message}");
        }
    }
}

/// <summary>The key under which an authoriser is registered: <c>registry.Register&lt;TunnelAuthorizer&gt;(actorRef)</c>.</summary>
public sealed class TunnelAuthorizer
{
    private TunnelAuthorizer()
    {
    }
}
