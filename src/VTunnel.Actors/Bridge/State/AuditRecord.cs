using System.Globalization;

namespace VTunnel.Bridge.State;

/// <summary>One thing that happened.</summary>
/// <param name="Time">When.</param>
/// <param name="Kind">What, e.g. <c>stream</c>, <c>login</c>, <c>refused</c>, <c>revoked</c>.</param>
/// <param name="User">Whom it is about; null for nobody in particular. At the relay: the publisher.</param>
/// <param name="Target">The <c>host:port</c> of a stream; null elsewhere.</param>
/// <param name="Detail">The rest, in words.</param>
/// <param name="Duration">How long a stream or session lasted; null elsewhere.</param>
/// <param name="BytesIn">Bytes of a stream to the target; null elsewhere.</param>
/// <param name="BytesOut">Bytes of a stream from the target; null elsewhere.</param>
public sealed record AuditRecord(
    DateTimeOffset Time,
    string Kind,
    string? User,
    string? Target = null,
    string? Detail = null,
    TimeSpan? Duration = null,
    long? BytesIn = null,
    long? BytesOut = null);

/// <summary>
/// The table of what happened, bounded: the oldest goes first. What strangers and users can cause at will pushes out its like
/// and not what administrators did, nor do refusals push out anything else.
/// </summary>
internal static class AuditTable
{
    /// <summary>How many records are kept.</summary>
    public const int MaxRecords = 20_000;

    /// <summary>How many of them are of one kind of refusal.</summary>
    public const int MaxRefusals = 1000;

    /// <summary>How many of them are of what administrators did, so that there is room for what users do.</summary>
    public const int MaxChanges = 10_000;

    private const string Refused = "refused";
    private const string Denied = "denied";

    /// <summary>
    /// What users cause by coming, going and using what is granted to them, and starts of the program, of which a restart in a
    /// loop makes many; every other kind is an administrator's, but for refusals.
    /// </summary>
    private static readonly string[] Uses = ["login", "logout", "ended", "stream-open", "stream-end", "stream-failed", "started", "stopped"];

    private static readonly string UseKinds = string.Join(", ", Uses.Select(kind => $"'{kind}'"));

    /// <summary>The longest text that is kept; what peers call themselves must not fill the disk.</summary>
    private const int MaxText = 300;

    /// <summary>The kinds whose detail is written here and not by peers, and is kept whole: all that a user may from then on.</summary>
    private static readonly string[] Changes = ["created", "changed"];

    public const string Schema =
        """
        CREATE TABLE audit (
          id INTEGER PRIMARY KEY AUTOINCREMENT,
          time TEXT NOT NULL,
          kind TEXT NOT NULL,
          user TEXT,
          target TEXT,
          detail TEXT,
          milliseconds INTEGER,
          bytes_in INTEGER,
          bytes_out INTEGER);
        CREATE INDEX audit_time ON audit (time);
        """;

    /// <summary>Whether a kind is one of refusals, which anybody can cause.</summary>
    public static bool IsRefusal(string kind) => kind is Refused or Denied;

    public static void Add(SqliteFile.Database database, IReadOnlyCollection<AuditRecord> records)
    {
        foreach (var record in records)
        {
            database.Run(
                "INSERT INTO audit (time, kind, user, target, detail, milliseconds, bytes_in, bytes_out) VALUES ($time, $kind, $user, $target, $detail, $ms, $in, $out)",
                ("$time", Text(record.Time)),
                ("$kind", record.Kind),
                ("$user", Cut(record.User)),
                ("$target", Cut(record.Target)),
                ("$detail", Changes.Contains(record.Kind) ? record.Detail : Cut(record.Detail)),
                ("$ms", record.Duration is { } duration ? (long)duration.TotalMilliseconds : null),
                ("$in", record.BytesIn),
                ("$out", record.BytesOut));
        }

        Trim(database, records.Any(record => !Uses.Contains(record.Kind)));
    }

    private static void Trim(SqliteFile.Database database, bool hasOthers)
    {
        var excess = database.Scalar<int>("SELECT COUNT(*) FROM audit") - MaxRecords;
        if (!hasOthers)
        {
            // What is written all the time goes without looking at every record. A file from before the other kinds had bounds needs more.
            excess -= excess > 0 ? TrimUses(database, excess) : 0;
            if (excess <= 0)
                return;
        }

        foreach (var kind in (string[])[Refused, Denied])
        {
            excess -= database.Run(
                $"DELETE FROM audit WHERE kind = $kind AND id <= (SELECT id FROM audit WHERE kind = $kind ORDER BY id DESC LIMIT 1 OFFSET {MaxRefusals})",
                ("$kind", kind));
        }

        if (excess <= 0)
            return;
        var changes = $"kind NOT IN ({UseKinds}, '{Refused}', '{Denied}')";
        excess -= database.Run(
            $"DELETE FROM audit WHERE {changes} AND id <= (SELECT id FROM audit WHERE {changes} ORDER BY id DESC LIMIT 1 OFFSET {MaxChanges})");
        if (excess > 0)
            TrimUses(database, excess);
    }

    /// <summary>Deletes the oldest, but none of those for which there is room whatever else is kept; gives their number.</summary>
    private static int TrimUses(SqliteFile.Database database, int count) => database.Run(
        $"""
        DELETE FROM audit WHERE id IN (
          SELECT id FROM audit WHERE kind IN ({UseKinds}) AND id <= (SELECT MAX(id) FROM audit) - {MaxRecords - MaxChanges - (2 * MaxRefusals)}
          ORDER BY id LIMIT $count)
        """,
        ("$count", count));

    /// <summary>The newest records that fit, oldest first.</summary>
    public static List<AuditRecord> Read(SqliteFile.Database database, string? user, DateTimeOffset? since, int limit, bool isBeginning = false)
    {
        var records = database.Query(
            """
            SELECT time, kind, user, target, detail, milliseconds, bytes_in, bytes_out FROM audit
            WHERE ($user IS NULL OR user = $user OR ($beginning AND substr(user, 1, length($user)) = $user)) AND ($since IS NULL OR time >= $since) ORDER BY id DESC LIMIT $limit
            """,
            row => new AuditRecord(
                Time(row.GetString(0)),
                row.GetString(1),
                row.IsDBNull(2) ? null : row.GetString(2),
                row.IsDBNull(3) ? null : row.GetString(3),
                row.IsDBNull(4) ? null : row.GetString(4),
                row.IsDBNull(5) ? null : TimeSpan.FromMilliseconds(row.GetInt64(5)),
                row.IsDBNull(6) ? null : row.GetInt64(6),
                row.IsDBNull(7) ? null : row.GetInt64(7)),
            ("$user", user),
            ("$beginning", isBeginning ? 1 : 0),
            ("$since", since is { } from ? Text(from) : null),
            ("$limit", limit));
        records.Reverse();
        return records;
    }

    /// <summary>A time as text that sorts as times do.</summary>
    public static string Text(DateTimeOffset time) => time.UtcDateTime.ToString("yyyy-MM-dd'T'HH:mm:ss.fff'Z'", CultureInfo.InvariantCulture);

    public static DateTimeOffset Time(string text) => DateTimeOffset.Parse(text, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal);

    private static string? Cut(string? text) => text is { Length: > MaxText } ? text[..MaxText] : text;
}
