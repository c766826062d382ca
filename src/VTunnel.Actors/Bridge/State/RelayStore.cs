using System.Security.Cryptography.X509Certificates;
using Microsoft.Data.Sqlite;
using VTunnel.Bridge.Identity;

namespace VTunnel.Bridge.State;

/// <summary>What a relay is.</summary>
/// <param name="Id">At random, made once: what admissions are made out to.</param>
/// <param name="Domain">Its public name.</param>
/// <param name="Url">Where publishers and consumers dial.</param>
public sealed record RelaySettings(string Id, string Domain, Uri Url);

/// <summary>An enrolled publisher. The certificate is public.</summary>
public sealed record EnrolledPublisher(string Fingerprint, string Name, byte[] Certificate, DateTimeOffset Enrolled);

/// <summary>An invitation that can be used yet. Its code is not kept.</summary>
/// <param name="Id">The first 12 hexadecimal digits of the code's hash: what it is called where the code must not be seen.</param>
/// <param name="Created">When it was made.</param>
/// <param name="Expires">Until when it can be used.</param>
public sealed record OpenInvitation(string Id, DateTimeOffset Created, DateTimeOffset Expires)
{
    private const int IdLength = 12;

    internal static string IdOf(string hash) => hash[..IdLength];
}

/// <summary>A relay's state: who it is, who is enrolled, which invitations are open. Nothing in it is secret.</summary>
public sealed class RelayStore : IDisposable
{
    /// <summary>The file's name in the state directory.</summary>
    public const string FileName = "relay.db";

    private static readonly string[] Schema =
    [
        """
        CREATE TABLE relay (id TEXT NOT NULL, domain TEXT NOT NULL, url TEXT NOT NULL);
        CREATE TABLE publishers (fingerprint TEXT PRIMARY KEY, name TEXT NOT NULL, certificate BLOB NOT NULL, enrolled TEXT NOT NULL);
        CREATE TABLE invitations (hash TEXT PRIMARY KEY, created TEXT NOT NULL, expires TEXT NOT NULL, used_by TEXT);
        """ + AuditTable.Schema,
    ];

    private readonly SqliteFile _file;

    private RelayStore(SqliteFile file) => _file = file;

    /// <summary>Changes when another process has changed the state.</summary>
    public long DataVersion => _file.DataVersion;

    /// <summary>Makes the state of a new relay.</summary>
    /// <exception cref="BridgeException">There is one already, or it cannot be written.</exception>
    public static RelayStore Initialize(string folder, string domain, Uri url)
    {
        StateFiles.CreateFolder(folder);
        var store = new RelayStore(new SqliteFile(Path.Combine(folder, FileName), Schema));
        try
        {
            store._file.Write(database =>
            {
                if (database.Scalar<string>("SELECT domain FROM relay") is { } known)
                {
                    throw new BridgeException(
                        BridgeError.Invalid, $"there is a relay in {folder} already, for {known}; start it with 'vtunnel relay', or give another --state-dir");
                }

                database.Run(
                    "INSERT INTO relay (id, domain, url) VALUES ($id, $domain, $url)",
                    ("$id", Guid.NewGuid().ToString("N")),
                    ("$domain", domain),
                    ("$url", url.ToString()));
            });
            return store;
        }
        catch
        {
            store.Dispose();
            throw;
        }
    }

    /// <summary>Opens the state of a relay.</summary>
    /// <exception cref="BridgeException">There is none, or it cannot be read.</exception>
    public static RelayStore Open(string folder)
    {
        var path = Path.Combine(folder, FileName);
        if (!StateFiles.Exists(path))
            throw new BridgeException(BridgeError.Invalid, $"there is no relay in {folder} yet; make one: vtunnel relay init --domain relay.example.com");
        var store = new RelayStore(new SqliteFile(path, Schema));
        try
        {
            _ = store.Settings;
            return store;
        }
        catch
        {
            store.Dispose();
            throw;
        }
    }

    /// <summary>Who the relay is.</summary>
    public RelaySettings Settings => _file.Read(database => database.Query(
            "SELECT id, domain, url FROM relay", row => new RelaySettings(row.GetString(0), row.GetString(1), new Uri(row.GetString(2)))))
        .FirstOrDefault() ?? throw new BridgeException(BridgeError.Invalid, "the relay is not set up yet: vtunnel relay init --domain relay.example.com");

    /// <summary>Makes an invitation and gives its code, which is not kept.</summary>
    public string Invite(DateTimeOffset now, TimeSpan validity)
    {
        var code = InvitationCode.Create();
        var hash = InvitationCode.Hash(code);
        _file.Write(database =>
        {
            database.Run("DELETE FROM invitations WHERE expires < $old", ("$old", AuditTable.Text(now - TimeSpan.FromDays(30))));
            database.Run(
                "INSERT INTO invitations (hash, created, expires) VALUES ($hash, $now, $expires)",
                ("$hash", hash),
                ("$now", AuditTable.Text(now)),
                ("$expires", AuditTable.Text(now + validity)));
            AuditTable.Add(database, [new AuditRecord(now, "invited", null, Detail: $"{OpenInvitation.IdOf(hash)}, valid until {AuditTable.Text(now + validity)}")]);
        });
        return code;
    }

    /// <summary>The invitations that can be used yet, the oldest first.</summary>
    public IReadOnlyList<OpenInvitation> ListInvitations(DateTimeOffset now) => _file.Read(database => OpenInvitations(database, now));

    /// <summary>Withdraws an invitation, named by its code or by the beginning of its id.</summary>
    /// <exception cref="BridgeException">There is none that could be used, or more than one.</exception>
    public OpenInvitation Withdraw(string which, DateTimeOffset now)
    {
        ArgumentException.ThrowIfNullOrEmpty(which);
        return _file.Write(database =>
        {
            var code = OpenInvitation.IdOf(InvitationCode.Hash(which));
            var found = OpenInvitations(database, now)
                .Where(open => open.Id == code || (which.Length >= 6 && open.Id.StartsWith(which, StringComparison.OrdinalIgnoreCase)))
                .ToList();
            switch (found.Count)
            {
                case 0:
                    // What was given may be a code, and an error may end up in a log.
                    throw new BridgeException(
                        BridgeError.Invalid,
                        "there is no such invitation, or it was used or has expired; 'vtunnel relay invitations' shows which are open, 'vtunnel relay list' who has used one");
                case > 1:
                    throw new BridgeException(BridgeError.Invalid, $"{found.Count} invitations begin with '{which}'; give more of its id");
            }

            database.Run("DELETE FROM invitations WHERE substr(hash, 1, length($id)) = $id AND used_by IS NULL", ("$id", found[0].Id));
            AuditTable.Add(database, [new AuditRecord(now, "withdrawn", null, Detail: found[0].Id)]);
            return found[0];
        });
    }

    /// <summary>
    /// Why a publisher could not be enrolled with a code; null if it could. Writes nothing: whoever has no code must not keep
    /// the disk busy, while everybody else waits.
    /// </summary>
    public string? WhyNotEnrolled(string code, string fingerprint, DateTimeOffset now)
    {
        var hash = InvitationCode.Hash(code);
        return _file.Read(database => WhyNotEnrolled(database, hash, fingerprint, now));
    }

    /// <summary>
    /// Uses up an invitation. The same publisher may repeat it, in case the answer was lost on the way, which changes nothing;
    /// nobody else can.
    /// </summary>
    /// <returns>Null if the publisher is enrolled now; else why not, for the relay's own log; nothing of it is in the audit.</returns>
    public string? Enrol(string code, X509Certificate2 certificate, string name, DateTimeOffset now)
    {
        ArgumentNullException.ThrowIfNull(certificate);
        var hash = InvitationCode.Hash(code);
        var fingerprint = Keys.Fingerprint(certificate);
        if (WhyNotEnrolled(code, fingerprint, now) is { } refusal)
            return refusal;
        if (_file.Read(database => IsEnrolledBy(database, hash, fingerprint)))
            return null;
        return _file.Write(database =>
        {
            var used = database.Run(
                "UPDATE invitations SET used_by = $who WHERE hash = $hash AND expires > $now AND (used_by IS NULL OR used_by = $who)",
                ("$who", fingerprint),
                ("$hash", hash),
                ("$now", AuditTable.Text(now)));
            if (used == 0)
            {
                // Somebody else was faster.
                return WhyNotEnrolled(database, hash, fingerprint, now) ?? "there is no such code";
            }

            database.Run(
                """
                INSERT INTO publishers (fingerprint, name, certificate, enrolled) VALUES ($who, $name, $certificate, $now)
                ON CONFLICT (fingerprint) DO UPDATE SET name = $name
                """,
                ("$who", fingerprint),
                ("$name", name),
                ("$certificate", certificate.RawData),
                ("$now", AuditTable.Text(now)));
            AuditTable.Add(database, [new AuditRecord(now, "enrolled", fingerprint, Detail: name)]);
            return null;
        });
    }

    /// <summary>An enrolled publisher; null if it is not.</summary>
    public EnrolledPublisher? Find(string fingerprint) => _file.Read(database =>
        database.Query("SELECT fingerprint, name, certificate, enrolled FROM publishers WHERE fingerprint = $who", Map, ("$who", fingerprint)).FirstOrDefault());

    /// <summary>All enrolled publishers, by name.</summary>
    public IReadOnlyList<EnrolledPublisher> List() => _file.Read(database =>
        database.Query("SELECT fingerprint, name, certificate, enrolled FROM publishers ORDER BY name, fingerprint", Map));

    /// <summary>Removes a publisher, named by name or by the beginning of its fingerprint.</summary>
    /// <exception cref="BridgeException">There is none, or more than one.</exception>
    public EnrolledPublisher Remove(string which, DateTimeOffset now)
    {
        ArgumentException.ThrowIfNullOrEmpty(which);
        var found = List().Where(known => known.Name == which || known.Fingerprint == which).ToList();
        if (found.Count == 0 && which.Length >= 6)
            found = [.. List().Where(known => known.Fingerprint.StartsWith(which, StringComparison.OrdinalIgnoreCase))];
        switch (found.Count)
        {
            case 0:
                throw new BridgeException(BridgeError.Invalid, $"no publisher '{which}' is enrolled; 'vtunnel relay list' shows who is");
            case > 1:
                throw new BridgeException(BridgeError.Invalid, $"{found.Count} publishers are called '{which}'; give the first letters of the fingerprint, at least 6");
        }

        _file.Write(database =>
        {
            database.Run("DELETE FROM publishers WHERE fingerprint = $who", ("$who", found[0].Fingerprint));

            // Its invitation must not let it in again.
            database.Run("DELETE FROM invitations WHERE used_by = $who", ("$who", found[0].Fingerprint));
            AuditTable.Add(database, [new AuditRecord(now, "removed", found[0].Fingerprint, Detail: found[0].Name)]);
        });
        return found[0];
    }

    /// <summary>Adds records.</summary>
    public void Audit(IReadOnlyCollection<AuditRecord> records) => _file.Write(database => AuditTable.Add(database, records));

    /// <summary>The newest records that fit, oldest first.</summary>
    public IReadOnlyList<AuditRecord> ReadAudit(string? publisher, DateTimeOffset? since, int limit) =>
        _file.Read(database => AuditTable.Read(database, publisher, since, limit, isBeginning: true));

    /// <summary>For tests: the file may not grow from now on, as on a full disk.</summary>
    internal void LimitPages() => _file.Read(database => database.Scalar<long>("PRAGMA max_page_count = 1"));

    /// <inheritdoc />
    public void Dispose() => _file.Dispose();

    /// <summary>Whether a publisher that is enrolled has used this very invitation.</summary>
    private static bool IsEnrolledBy(SqliteFile.Database database, string hash, string fingerprint) =>
        database.Query(
            "SELECT 1 FROM invitations JOIN publishers ON used_by = fingerprint WHERE hash = $hash AND fingerprint = $who",
            row => row.GetInt32(0),
            ("$hash", hash),
            ("$who", fingerprint)).Count > 0;

    private static List<OpenInvitation> OpenInvitations(SqliteFile.Database database, DateTimeOffset now) => database.Query(
        "SELECT hash, created, expires FROM invitations WHERE used_by IS NULL AND expires > $now ORDER BY created, hash",
        row => new OpenInvitation(OpenInvitation.IdOf(row.GetString(0)), AuditTable.Time(row.GetString(1)), AuditTable.Time(row.GetString(2))),
        ("$now", AuditTable.Text(now)));

    private static string? WhyNotEnrolled(SqliteFile.Database database, string hash, string fingerprint, DateTimeOffset now)
    {
        var known = database.Query(
            "SELECT expires, used_by FROM invitations WHERE hash = $hash",
            row => (Expires: row.GetString(0), UsedBy: row.IsDBNull(1) ? null : row.GetString(1)),
            ("$hash", hash));
        return known switch
        {
            [] => "there is no such code",
            [{ UsedBy: { } other }, ..] when other != fingerprint => $"the code was used by publisher {other[..12]}",
            [{ Expires: var expires }, ..] when string.CompareOrdinal(expires, AuditTable.Text(now)) <= 0 => $"the code expired at {expires}",
            _ => null,
        };
    }

    private static EnrolledPublisher Map(SqliteDataReader row) =>
        new(row.GetString(0), row.GetString(1), row.GetFieldValue<byte[]>(2), AuditTable.Time(row.GetString(3)));
}
