using System.Globalization;
using Microsoft.Data.Sqlite;

namespace VTunnel.Bridge.State;

/// <summary>
/// One SQLite file with a schema version. Several processes may use it at once; within this one, calls are taken one by one.
/// </summary>
internal sealed class SqliteFile : IDisposable
{
    /// <summary>SQLITE_FULL, SQLITE_READONLY, SQLITE_CANTOPEN, SQLITE_IOERR, SQLITE_PERM, SQLITE_BUSY, SQLITE_LOCKED.</summary>
    private static readonly int[] StorageErrors = [13, 8, 14, 10, 3, 5, 6];

    private readonly string _path;
    private readonly SqliteConnection _connection;
    private readonly Lock _gate = new();
    private bool _isDisposed;

    /// <summary>Opens or makes the file and brings its schema up to date.</summary>
    /// <param name="path">The file.</param>
    /// <param name="schema">What each version adds to the one before, from version 1 up. Never edited, only added to.</param>
    /// <exception cref="BridgeException">It cannot be used, is damaged, or was written by a later version of the program.</exception>
    public SqliteFile(string path, IReadOnlyList<string> schema)
    {
        _path = path;
        StateFiles.CreateFile(path);
        _connection = Connection(path);
        try
        {
            Guard(() =>
            {
                _connection.Open();
                Run(null, "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;", []);
                Upgrade(schema);
            });
        }
        catch
        {
            _connection.Dispose();
            throw;
        }
    }

    /// <summary>The contents of one moment, whoever writes meanwhile: what lies in the file and in the log beside it.</summary>
    /// <exception cref="BridgeException">It cannot be read.</exception>
    public static byte[] Snapshot(string path)
    {
        var copy = $"{path}.{Guid.NewGuid():N}.new";
        StateFiles.CreateFile(copy);
        try
        {
            Guard(path, () =>
            {
                using var connection = Connection(path);
                connection.Open();
                using var command = connection.CreateCommand();
                command.CommandText = "VACUUM INTO $copy";
                command.Parameters.AddWithValue("$copy", copy);
                command.ExecuteNonQuery();
            });
            return File.ReadAllBytes(copy);
        }
        finally
        {
            File.Delete(copy);
        }
    }

    private static SqliteConnection Connection(string path)
    {
        var settings = new SqliteConnectionStringBuilder
        {
            DataSource = path,
            Mode = SqliteOpenMode.ReadWrite,
            Pooling = false,
            DefaultTimeout = 5,
        };
        try
        {
            return new SqliteConnection(settings.ToString());
        }
        catch (TypeInitializationException e) when (e.GetBaseException() is DllNotFoundException)
        {
            // Whoever installs the program may have taken one of its two files for all of it.
            throw new BridgeException(
                BridgeError.Storage, $"SQLite's library (libe_sqlite3.so on Linux) cannot be loaded: it came with the program and belongs beside it, in {AppContext.BaseDirectory}", e);
        }
    }

    /// <summary>Changes whenever another connection has changed the file.</summary>
    public long DataVersion => Read(database => database.Scalar<long>("PRAGMA data_version"));

    /// <summary>Reads, or writes a single statement.</summary>
    public T Read<T>(Func<Database, T> work)
    {
        var result = default(T)!;
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_isDisposed, this);
            Guard(() => result = work(new Database(this, null)));
        }

        return result;
    }

    /// <summary>All of it or nothing, and nobody else writes meanwhile.</summary>
    public T Write<T>(Func<Database, T> work)
    {
        var result = default(T)!;
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_isDisposed, this);
            Guard(() =>
            {
                using var transaction = _connection.BeginTransaction(deferred: false);
                result = work(new Database(this, transaction));
                transaction.Commit();
            });
        }

        return result;
    }

    /// <inheritdoc cref="Write{T}"/>
    public void Write(Action<Database> work) => Write<object?>(database =>
    {
        work(database);
        return null;
    });

    /// <summary>Waits for the call that is under way; later ones fail.</summary>
    public void Dispose()
    {
        lock (_gate)
        {
            _isDisposed = true;
            _connection.Dispose();
        }
    }

    /// <summary>What a piece of work may do.</summary>
    public readonly struct Database(SqliteFile file, SqliteTransaction? transaction)
    {
        /// <summary>Runs a statement; gives the number of rows that it changed.</summary>
        public int Run(string sql, params (string Name, object? Value)[] values) => file.Run(transaction, sql, values);

        /// <summary>The first value of the first row; the default if there is none.</summary>
        public T? Scalar<T>(string sql, params (string Name, object? Value)[] values)
        {
            using var command = file.Command(transaction, sql, values);
            return command.ExecuteScalar() is { } value and not DBNull ? (T)Convert.ChangeType(value, typeof(T), CultureInfo.InvariantCulture) : default;
        }

        /// <summary>All rows.</summary>
        public List<T> Query<T>(string sql, Func<SqliteDataReader, T> map, params (string Name, object? Value)[] values)
        {
            using var command = file.Command(transaction, sql, values);
            using var reader = command.ExecuteReader();
            var rows = new List<T>();
            while (reader.Read())
                rows.Add(map(reader));
            return rows;
        }
    }

    private void Upgrade(IReadOnlyList<string> schema)
    {
        using var transaction = _connection.BeginTransaction(deferred: false);
        var version = new Database(this, transaction).Scalar<int>("PRAGMA user_version");
        if (version > schema.Count)
        {
            throw new BridgeException(
                BridgeError.Damaged, $"{_path} was written by a later version of vtunnel (schema {version}, this one knows {schema.Count}); use that version");
        }

        for (; version < schema.Count; version++)
            Run(transaction, schema[version], []);
        Run(transaction, string.Create(CultureInfo.InvariantCulture, $"PRAGMA user_version = {version}"), []);
        transaction.Commit();
    }

    private int Run(SqliteTransaction? transaction, string sql, (string Name, object? Value)[] values)
    {
        using var command = Command(transaction, sql, values);
        return command.ExecuteNonQuery();
    }

#pragma warning disable CA2100 // Every statement is a constant of the stores beside this file; values go by parameters.
    private SqliteCommand Command(SqliteTransaction? transaction, string sql, (string Name, object? Value)[] values)
    {
        var command = _connection.CreateCommand();
        command.CommandText = sql;
        command.Transaction = transaction;
        foreach (var (name, value) in values)
            command.Parameters.AddWithValue(name, value ?? DBNull.Value);
        return command;
    }
#pragma warning restore CA2100

    private void Guard(Action action) => Guard(_path, action);

    private static void Guard(string path, Action action)
    {
        try
        {
            action();
        }
        catch (SqliteException e) when (StorageErrors.Contains(e.SqliteErrorCode))
        {
            throw new BridgeException(
                BridgeError.Storage, $"{path} cannot be used: {Explain(e)}; see to its permissions and to space on the disk, or give another --state-dir", e);
        }
        catch (SqliteException e)
        {
            throw new BridgeException(BridgeError.Damaged, $"{path} is damaged: {e.Message.TrimEnd('.')}; restore it from a copy", e);
        }
    }

    private static string Explain(SqliteException e) => e.SqliteErrorCode switch
    {
        13 => "the disk is full",
        8 => "it cannot be written",
        5 or 6 => "another process holds it",
        _ => e.Message.TrimEnd('.'),
    };
}
