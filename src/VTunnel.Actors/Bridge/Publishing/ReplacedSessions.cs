using VTunnel.Protocol.Link;

namespace VTunnel.Bridge.Publishing;

/// <summary>
/// Sessions that a newer one of their user has ended. One that had no connection then was not told: it asks to go on one day,
/// a laptop that slept perhaps a day later, and must not take the new one's place by beginning anew.
/// </summary>
internal sealed class ReplacedSessions
{
    /// <summary>How many are remembered, the newest.</summary>
    public const int Max = 1000;

    private readonly Dictionary<(LinkId, string), string> _reasons = [];
    private readonly Queue<(LinkId, string)> _oldest = new();

    public void Add(LinkId link, string userKey, string reason)
    {
        if (_oldest.Count >= Max)
            _reasons.Remove(_oldest.Dequeue());
        _reasons.Add((link, userKey), reason);
        _oldest.Enqueue((link, userKey));
    }

    /// <summary>Why it was ended; null if it was not, or that was forgotten.</summary>
    public string? Find(LinkId link, string userKey) => _reasons.GetValueOrDefault((link, userKey));
}
