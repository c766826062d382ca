using Microsoft.Data.Sqlite;
using VTunnel.Protocol.Bridge;
using VTunnel.Protocol.Control;

namespace VTunnel.Bridge.State;

/// <summary>A user as the publisher knows it.</summary>
/// <param name="Name">Unique.</param>
/// <param name="KeyFingerprint">Of the user's key: what is looked for when somebody connects.</param>
/// <param name="Expires">From when on the user is refused; null for never.</param>
/// <param name="Revoked">Since when the user is refused; null if it is not.</param>
/// <param name="SingleSession">Whether a new session ends an older one.</param>
/// <param name="Maps">Granted to the user itself.</param>
/// <param name="Apps">The applications granted to the user.</param>
/// <param name="Grants">All that follows from both, by local port.</param>
public sealed record BridgeUser(
    string Name,
    string KeyFingerprint,
    DateTimeOffset? Expires,
    DateTimeOffset? Revoked,
    bool SingleSession,
    IReadOnlyList<BridgeGrant> Maps,
    IReadOnlyList<string> Apps,
    IReadOnlyList<BridgeGrant> Grants)
{
    /// <summary>Why the user is refused now; null if it is admitted.</summary>
    public string? RefusalAt(DateTimeOffset now) =>
        Revoked is not null ? $"user '{Name}' was revoked"
        : Expires <= now ? $"user '{Name}' has expired ({AuditTable.Text(Expires.Value)})"
        : null;
}

/// <summary>A user's key and certificate, for export.</summary>
/// <param name="Certificate">In PEM.</param>
/// <param name="KeyPem">In PEM; null if the user made the key.</param>
public sealed record UserCredentials(string Certificate, string? KeyPem);

/// <summary>A set of grants with a name.</summary>
public sealed record BridgeApp(string Name, IReadOnlyList<BridgeGrant> Maps);

/// <summary>A change to a user; null leaves as it is.</summary>
public sealed record UserChange
{
    /// <summary>Granted, or moved to another target if the local port was granted before.</summary>
    public IReadOnlyList<BridgeGrant> Add { get; init; } = [];

    /// <summary>Local ports whose grants are withdrawn.</summary>
    public IReadOnlyList<int> Remove { get; init; } = [];

    /// <summary>Applications to grant.</summary>
    public IReadOnlyList<string> AddApps { get; init; } = [];

    /// <summary>Applications to withdraw.</summary>
    public IReadOnlyList<string> RemoveApps { get; init; } = [];

    /// <summary>Whether <see cref="Expires"/> counts.</summary>
    public bool ChangesExpiry { get; init; }

    /// <summary>The new expiry; null for never.</summary>
    public DateTimeOffset? Expires { get; init; }

    /// <summary>Null leaves as it is.</summary>
    public bool? SingleSession { get; init; }
}

/// <summary>A publisher's state: users, what each may reach, applications, and what happened.</summary>
public sealed class PublisherStore : IDisposable
{
    /// <summary>The most grants that one user may have.</summary>
    public const int MaxGrants = 256;

    private static readonly string[] Schema =
    [
        """
        CREATE TABLE users (
          name TEXT PRIMARY KEY,
          key_fingerprint TEXT NOT NULL UNIQUE,
          certificate TEXT NOT NULL,
          key_pem TEXT,
          created TEXT NOT NULL,
          expires TEXT,
          revoked TEXT,
          single_session INTEGER NOT NULL);
        CREATE TABLE user_maps (
          user TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
          local INTEGER NOT NULL, host TEXT NOT NULL, port INTEGER NOT NULL,
          PRIMARY KEY (user, local));
        CREATE TABLE apps (name TEXT PRIMARY KEY);
        CREATE TABLE app_maps (
          app TEXT NOT NULL REFERENCES apps (name) ON DELETE CASCADE,
          local INTEGER NOT NULL, host TEXT NOT NULL, port INTEGER NOT NULL,
          PRIMARY KEY (app, local));
        CREATE TABLE user_apps (
          user TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
          app TEXT NOT NULL REFERENCES apps (name),
          PRIMARY KEY (user, app));
        """ + AuditTable.Schema,
    ];

    private readonly SqliteFile _file;

    /// <summary>Opens the state, or makes it.</summary>
    /// <exception cref="BridgeException">It cannot be used.</exception>
    public PublisherStore(string path) => _file = new SqliteFile(path, Schema);

    /// <summary>Changes when another process has changed the state.</summary>
    public long DataVersion => _file.DataVersion;

    /// <summary>All users, by name.</summary>
    public IReadOnlyList<BridgeUser> ListUsers() => _file.Read(database => Users(database, null));

    /// <summary>A user; null if there is none.</summary>
    public BridgeUser? FindUser(string name) => _file.Read(database => Users(database, name)).FirstOrDefault();

    /// <summary>A user's key and certificate.</summary>
    /// <exception cref="BridgeException">There is no such user.</exception>
    public UserCredentials GetCredentials(string name) => _file.Read(database => database.Query(
        "SELECT certificate, key_pem FROM users WHERE name = $name",
        row => new UserCredentials(row.GetString(0), row.IsDBNull(1) ? null : row.GetString(1)),
        ("$name", name))).FirstOrDefault() ?? throw NoUser(name);

    /// <summary>Adds a user.</summary>
    /// <exception cref="BridgeException">The name is taken, an application is unknown, or local ports clash.</exception>
    public BridgeUser CreateUser(string name, string keyFingerprint, UserCredentials credentials, UserChange change, string? from, DateTimeOffset now)
    {
        ArgumentNullException.ThrowIfNull(credentials);
        ArgumentNullException.ThrowIfNull(change);
        return _file.Write(database =>
        {
            if (Users(database, name).Count > 0)
                throw new BridgeException(BridgeError.Invalid, $"there is a user '{name}' already; change it with 'vtunnel edit user {name}', or delete it first");
            if (database.Scalar<string>("SELECT name FROM users WHERE key_fingerprint = $key", ("$key", keyFingerprint)) is { } owner)
                throw new BridgeException(BridgeError.Invalid, $"this key belongs to user '{owner}'; every user has a key of its own");
            database.Run(
                """
                INSERT INTO users (name, key_fingerprint, certificate, key_pem, created, expires, single_session)
                VALUES ($name, $fingerprint, $certificate, $key, $now, NULL, 0)
                """,
                ("$name", name),
                ("$fingerprint", keyFingerprint),
                ("$certificate", credentials.Certificate),
                ("$key", credentials.KeyPem),
                ("$now", AuditTable.Text(now)));
            if (from is not null)
            {
                var model = Users(database, from).FirstOrDefault() ?? throw NoUser(from);
                Apply(database, name, new UserChange { Add = model.Maps, AddApps = model.Apps, SingleSession = model.SingleSession });
            }

            Apply(database, name, change);
            return Changed(database, name, "created", now);
        });
    }

    /// <summary>Changes a user.</summary>
    /// <exception cref="BridgeException">There is no such user or application, nothing to withdraw, or local ports clash.</exception>
    public BridgeUser EditUser(string name, UserChange change, DateTimeOffset now)
    {
        ArgumentNullException.ThrowIfNull(change);
        return _file.Write(database =>
        {
            if (Users(database, name).Count == 0)
                throw NoUser(name);
            Apply(database, name, change);
            return Changed(database, name, "changed", now);
        });
    }

    /// <summary>Refuses a user from now on, for good; it stays in the list.</summary>
    /// <exception cref="BridgeException">There is no such user.</exception>
    public void RevokeUser(string name, DateTimeOffset now) => _file.Write(database =>
    {
        if (database.Run("UPDATE users SET revoked = COALESCE(revoked, $now) WHERE name = $name", ("$name", name), ("$now", AuditTable.Text(now))) == 0)
            throw NoUser(name);
        AuditTable.Add(database, [new AuditRecord(now, "revoked", name)]);
    });

    /// <summary>Removes a user, who is refused from now on.</summary>
    /// <exception cref="BridgeException">There is no such user.</exception>
    public void DeleteUser(string name, DateTimeOffset now) => _file.Write(database =>
    {
        if (database.Run("DELETE FROM users WHERE name = $name", ("$name", name)) == 0)
            throw NoUser(name);
        AuditTable.Add(database, [new AuditRecord(now, "deleted", name)]);
    });

    /// <summary>All applications, by name.</summary>
    public IReadOnlyList<BridgeApp> ListApps() => _file.Read(Apps);

    /// <summary>Adds an application.</summary>
    /// <exception cref="BridgeException">The name is taken.</exception>
    public BridgeApp CreateApp(string name, IReadOnlyList<BridgeGrant> maps, DateTimeOffset now) => _file.Write(database =>
    {
        if (database.Run("INSERT OR IGNORE INTO apps (name) VALUES ($name)", ("$name", name)) == 0)
            throw new BridgeException(BridgeError.Invalid, $"there is an application '{name}' already; change it with 'vtunnel edit app {name}'");
        return ChangeApp(database, name, maps, [], "created", now);
    });

    /// <summary>Changes an application, and so what all its users may reach.</summary>
    /// <exception cref="BridgeException">There is no such application, nothing to withdraw, or local ports of a user clash.</exception>
    public BridgeApp EditApp(string name, IReadOnlyList<BridgeGrant> add, IReadOnlyList<int> remove, DateTimeOffset now) => _file.Write(database =>
    {
        if (Apps(database).All(app => app.Name != name))
            throw NoApp(name);
        return ChangeApp(database, name, add, remove, "changed", now);
    });

    /// <summary>Removes an application that nobody has.</summary>
    /// <exception cref="BridgeException">There is no such application, or users have it.</exception>
    public void DeleteApp(string name, DateTimeOffset now) => _file.Write(database =>
    {
        var users = database.Query("SELECT user FROM user_apps WHERE app = $name ORDER BY user", row => row.GetString(0), ("$name", name));
        if (users.Count > 0)
        {
            throw new BridgeException(
                BridgeError.Invalid, $"application '{name}' is granted to {string.Join(", ", users)}; withdraw it first: vtunnel edit user {users[0]} --remove-app {name}");
        }

        if (database.Run("DELETE FROM apps WHERE name = $name", ("$name", name)) == 0)
            throw NoApp(name);
        AuditTable.Add(database, [new AuditRecord(now, "changed", null, Detail: $"application {name} was deleted")]);
    });

    /// <summary>Adds records.</summary>
    public void Audit(IReadOnlyCollection<AuditRecord> records) => _file.Write(database => AuditTable.Add(database, records));

    /// <summary>The newest records that fit, oldest first.</summary>
    public IReadOnlyList<AuditRecord> ReadAudit(string? user, DateTimeOffset? since, int limit) =>
        _file.Read(database => AuditTable.Read(database, user, since, limit));

    /// <inheritdoc />
    public void Dispose() => _file.Dispose();

    private static BridgeException NoUser(string name) =>
        new(BridgeError.Invalid, $"there is no user '{name}'; 'vtunnel list users' shows those that there are");

    private static BridgeException NoApp(string name) =>
        new(BridgeError.Invalid, $"there is no application '{name}'; 'vtunnel list apps' shows those that there are");

    private static void Apply(SqliteFile.Database database, string user, UserChange change)
    {
        foreach (var port in change.Remove)
        {
            if (database.Run("DELETE FROM user_maps WHERE user = $user AND local = $local", ("$user", user), ("$local", port)) == 0)
                throw new BridgeException(BridgeError.Invalid, $"user '{user}' has no mapping of its own for local port {port}; 'vtunnel show user {user}' shows them");
        }

        foreach (var app in change.RemoveApps)
        {
            if (database.Run("DELETE FROM user_apps WHERE user = $user AND app = $app", ("$user", user), ("$app", app)) == 0)
                throw new BridgeException(BridgeError.Invalid, $"user '{user}' does not have application '{app}'");
        }

        foreach (var grant in change.Add)
        {
            database.Run(
                "INSERT INTO user_maps (user, local, host, port) VALUES ($user, $local, $host, $port) ON CONFLICT (user, local) DO UPDATE SET host = $host, port = $port",
                ("$user", user),
                ("$local", grant.Local),
                ("$host", grant.Host),
                ("$port", grant.Port));
        }

        foreach (var app in change.AddApps)
        {
            if (database.Scalar<string>("SELECT name FROM apps WHERE name = $app", ("$app", app)) is null)
                throw NoApp(app);
            database.Run("INSERT OR IGNORE INTO user_apps (user, app) VALUES ($user, $app)", ("$user", user), ("$app", app));
        }

        if (change.ChangesExpiry)
        {
            database.Run(
                "UPDATE users SET expires = $expires WHERE name = $user",
                ("$user", user),
                ("$expires", change.Expires is { } expires ? AuditTable.Text(expires) : null));
        }

        if (change.SingleSession is { } single)
            database.Run("UPDATE users SET single_session = $single WHERE name = $user", ("$user", user), ("$single", single ? 1 : 0));
    }

    private static BridgeUser Changed(SqliteFile.Database database, string name, string kind, DateTimeOffset now)
    {
        var user = Users(database, name)[0];
        Check(user);
        var grants = user.Grants.Count == 0 ? "nothing" : string.Join(", ", user.Grants);
        var until = user.Expires is { } expires ? $" until {AuditTable.Text(expires)}" : "";
        var sessions = user.SingleSession ? ", one session at a time" : "";
        AuditTable.Add(database, [new AuditRecord(now, kind, name, Detail: $"may reach {grants}{until}{sessions}")]);
        return user;
    }

    private static BridgeApp ChangeApp(
        SqliteFile.Database database, string name, IReadOnlyList<BridgeGrant> add, IReadOnlyList<int> remove, string kind, DateTimeOffset now)
    {
        foreach (var port in remove)
        {
            if (database.Run("DELETE FROM app_maps WHERE app = $app AND local = $local", ("$app", name), ("$local", port)) == 0)
                throw new BridgeException(BridgeError.Invalid, $"application '{name}' has no mapping for local port {port}");
        }

        foreach (var grant in add)
        {
            database.Run(
                "INSERT INTO app_maps (app, local, host, port) VALUES ($app, $local, $host, $port) ON CONFLICT (app, local) DO UPDATE SET host = $host, port = $port",
                ("$app", name),
                ("$local", grant.Local),
                ("$host", grant.Host),
                ("$port", grant.Port));
        }

        var app = Apps(database).Single(app => app.Name == name);
        AuditTable.Add(database, [new AuditRecord(now, "changed", null, Detail: $"application {name} was {kind}: {(app.Maps.Count == 0 ? "nothing" : string.Join(", ", app.Maps))}")]);
        foreach (var user in Users(database, null).Where(user => user.Apps.Contains(name)))
            Changed(database, user.Name, "changed", now);
        return app;
    }

    /// <summary>Two targets cannot share a local port, and the list must fit into a message.</summary>
    private static void Check(BridgeUser user)
    {
        var clash = user.Grants.GroupBy(grant => grant.Local).FirstOrDefault(group => group.Count() > 1);
        if (clash is not null)
        {
            throw new BridgeException(
                BridgeError.Invalid,
                $"local port {clash.Key} of user '{user.Name}' would lead to {string.Join(" and to ", clash.Select(grant => grant.Target))}; give one of them another local port");
        }

        if (user.Grants.Count > MaxGrants)
            throw new BridgeException(BridgeError.Invalid, $"user '{user.Name}' would have {user.Grants.Count} grants; {MaxGrants} is the limit");

        var length = new BridgeGrants(user.Name, user.Grants).Length;
        if (length >= ControlLineReader.MaxLineBytes)
        {
            throw new BridgeException(
                BridgeError.Invalid,
                $"the grants of user '{user.Name}' would take {length} bytes in the message that tells them; {ControlLineReader.MaxLineBytes - 1} is the limit: use fewer or shorter host names");
        }
    }

    private static List<BridgeUser> Users(SqliteFile.Database database, string? name)
    {
        var maps = database.Query(
            "SELECT user, local, host, port FROM user_maps WHERE $name IS NULL OR user = $name",
            row => (User: row.GetString(0), Grant: new BridgeGrant(row.GetInt32(1), row.GetString(2), row.GetInt32(3))),
            ("$name", name)).ToLookup(row => row.User, row => row.Grant);
        var appsOf = database.Query(
            "SELECT user, app FROM user_apps WHERE $name IS NULL OR user = $name ORDER BY app",
            row => (User: row.GetString(0), App: row.GetString(1)),
            ("$name", name)).ToLookup(row => row.User, row => row.App);
        var apps = Apps(database).ToDictionary(app => app.Name);
        return database.Query(
            "SELECT name, key_fingerprint, expires, revoked, single_session FROM users WHERE $name IS NULL OR name = $name ORDER BY name",
            row =>
            {
                var user = row.GetString(0);
                BridgeGrant[] own = [.. maps[user].OrderBy(grant => grant.Local)];
                string[] granted = [.. appsOf[user]];
                return new BridgeUser(
                    user,
                    row.GetString(1),
                    row.IsDBNull(2) ? null : AuditTable.Time(row.GetString(2)),
                    row.IsDBNull(3) ? null : AuditTable.Time(row.GetString(3)),
                    row.GetInt32(4) != 0,
                    own,
                    granted,
                    [.. own.Concat(granted.SelectMany(app => apps[app].Maps)).Distinct().OrderBy(grant => grant.Local)]);
            },
            ("$name", name));
    }

    private static List<BridgeApp> Apps(SqliteFile.Database database)
    {
        var maps = database.Query(
            "SELECT app, local, host, port FROM app_maps ORDER BY local",
            row => (App: row.GetString(0), Grant: new BridgeGrant(row.GetInt32(1), row.GetString(2), row.GetInt32(3)))).ToLookup(row => row.App, row => row.Grant);
        return database.Query("SELECT name FROM apps ORDER BY name", row => new BridgeApp(row.GetString(0), [.. maps[row.GetString(0)]]));
    }
}
