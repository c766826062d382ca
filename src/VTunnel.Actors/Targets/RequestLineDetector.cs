using System.Buffers;

namespace VTunnel.Targets;

/// <summary>What the first bytes of a connection are.</summary>
internal enum FirstBytes
{
    /// <summary>Still the beginning of what may become a request line: wait for more.</summary>
    Undecided,

    /// <summary>An HTTP/1.0 or HTTP/1.1 request that a virtual host could answer.</summary>
    Http,

    /// <summary>Anything else.</summary>
    Other,
}

/// <summary>
/// Tells from the first bytes of a connection whether they begin an HTTP/1.x request. It decides at the first byte that
/// settles the matter and asks for more only while a request line is still plausible, because whoever waits for an
/// answer to bytes that are held back waits for ever.
/// </summary>
/// <remarks>
/// Not HTTP on purpose: CONNECT (it names another host, and what follows is not HTTP), the preface of HTTP/2,
/// HTTP/0.9, RTSP, SIP and other look-alikes.
/// </remarks>
internal struct RequestLineDetector
{
    /// <summary>A request line that is not complete after this many bytes is passed on as it is: 32 KiB, four times what servers commonly take.</summary>
    public const int MaxRequestLineBytes = 32 * 1024;

    private const int MaxMethodBytes = 32;

    private static readonly SearchValues<byte> TokenBytes = SearchValues.Create(
        "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"u8);

    // RFC 9110, the WebDAV family and what caches and UPnP use. An unknown method is recognised too,
    // but only if it arrives whole.
    private static readonly byte[][] KnownMethods = Array.ConvertAll(
        ("GET HEAD POST PUT DELETE OPTIONS TRACE PATCH QUERY ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT COPY LABEL LINK " +
         "LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE ORDERPATCH PROPFIND PROPPATCH REBIND " +
         "REPORT SEARCH UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL PURGE BAN M-SEARCH " +
         "NOTIFY SUBSCRIBE UNSUBSCRIBE").Split(' '),
        System.Text.Encoding.ASCII.GetBytes);

    private int _targetStart;
    private int _scanned;

    /// <summary>Looks at everything that has arrived; each call gets the bytes of the one before and those that came since.</summary>
    public FirstBytes Inspect(ReadOnlySpan<byte> all)
    {
        if (_targetStart == 0)
        {
            var space = all.IndexOf((byte)' ');
            var method = space < 0 ? all : all[..space];
            if (method.Length > MaxMethodBytes || method.ContainsAnyExcept(TokenBytes))
                return FirstBytes.Other;
            if (space < 0)
                return BeginsKnownMethod(method) ? FirstBytes.Undecided : FirstBytes.Other;
            if (space == 0)
                return FirstBytes.Other;
            _targetStart = _scanned = space + 1;
        }

        // The target: visible ASCII up to a space. A line that ends without a version is HTTP/0.9 or no HTTP at all.
        var target = all[_targetStart..];
        var end = all[_scanned..].IndexOfAnyExceptInRange((byte)0x21, (byte)0x7e);
        if (end >= 0)
        {
            _scanned += end;
            target = all[_targetStart.._scanned];
        }

        if (!CanBeTarget(target, complete: end >= 0))
            return FirstBytes.Other;
        if (end >= 0)
            return all[_scanned] == ' ' ? Version(all[(_scanned + 1)..]) : FirstBytes.Other;

        _scanned = all.Length;
        return all.Length > MaxRequestLineBytes ? FirstBytes.Other : FirstBytes.Undecided;
    }

    private static bool BeginsKnownMethod(ReadOnlySpan<byte> bytes)
    {
        foreach (var method in KnownMethods)
        {
            if (method.AsSpan().StartsWith(bytes))
                return true;
        }

        return false;
    }

    private static bool CanBeTarget(ReadOnlySpan<byte> target, bool complete)
    {
        if (target.IsEmpty)
            return !complete;
        if (target[0] == '/')
            return true;
        if (target[0] == '*')
            return target.Length == 1;
        return CanBegin(target, "http://"u8, complete) || CanBegin(target, "https://"u8, complete);
    }

    private static bool CanBegin(ReadOnlySpan<byte> target, ReadOnlySpan<byte> scheme, bool complete)
    {
        if (target.Length < scheme.Length)
            return !complete && System.Text.Ascii.EqualsIgnoreCase(target, scheme[..target.Length]);
        return System.Text.Ascii.EqualsIgnoreCase(target[..scheme.Length], scheme);
    }

    private static FirstBytes Version(ReadOnlySpan<byte> version)
    {
        var expected = "HTTP/1."u8;
        if (version.Length <= expected.Length)
            return expected.StartsWith(version) ? FirstBytes.Undecided : FirstBytes.Other;
        return version.StartsWith(expected) && version[expected.Length] is (byte)'0' or (byte)'1' ? FirstBytes.Http : FirstBytes.Other;
    }
}
