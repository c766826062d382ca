using VTunnel.Protocol.V2;

namespace VTunnel.Protocol.Tests.V2;

/// <summary>Two sessions with nothing between them.</summary>
internal static class V2Testing
{
    /// <summary>Passes frames on in both directions until neither has one.</summary>
    public static void Exchange(V2Session one, V2Session other)
    {
        while (Move(one, other) | Move(other, one))
        {
        }
    }

    private static bool Move(V2Session from, V2Session to)
    {
        var moved = false;
        while (from.TryTakeFrame(out var frame))
        {
            to.Receive(frame);
            moved = true;
        }

        return moved;
    }
}
