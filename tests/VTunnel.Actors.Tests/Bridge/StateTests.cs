using System.IO.Compression;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Microsoft.Data.Sqlite;
using VTunnel.Bridge;
using VTunnel.Bridge.Identity;
using VTunnel.Bridge.State;
using VTunnel.Protocol.Bridge;
using VTunnel.Testing;

namespace VTunnel.Actors.Tests.Bridge;

/// <summary>What is kept, and what becomes of it when it is damaged.</summary>
public sealed class StateTests
{
    private static DateTimeOffset Now => TimeProvider.System.GetUtcNow();

    [Theory]
    [InlineData("/state", "/home/alice", "/state/vtunnel")]
    [InlineData("state", "/no/such/home", "/no/such/home/.local/state/vtunnel")]
    [InlineData(null, null, "/account/.local/state/vtunnel")]
    [InlineData(null, "", "/account/.local/state/vtunnel")]
    public void State_is_kept_in_the_home_folder_as_it_is_named_whether_it_exists_or_not(string? state, string? home, string expected) =>
        Assert.Equal(expected, StateDirectory.DefaultPath(name => name == "HOME" ? home : state, () => "/account"));

    [Theory]
    [InlineData(null, "", "there is no home folder for the state (HOME is not set); give --state-dir DIR")]
    [InlineData("", "/", "there is no home folder for the state (HOME is not set); give --state-dir DIR")]
    [InlineData("here", "/account", "there is no home folder for the state (HOME is 'here'); give --state-dir DIR")]
    public void Without_a_home_folder_state_is_kept_nowhere(string? home, string account, string expected)
    {
        var error = Assert.Throws<BridgeException>(() => StateDirectory.DefaultPath(name => name == "HOME" ? home : null, () => account));
        Assert.Equal((BridgeError.Invalid, expected), (error.Code, error.Message));
    }

    private static (Bundle Bundle, byte[] Zip, PublisherIdentity Publisher) MakeBundle(string? passphrase = null)
    {
        var publisher = PublisherIdentity.Create();
        using var key = Keys.Create();
        using var certificate = publisher.Issue("alice", new PublicKey(key));
        var bundle = new Bundle(
            new BundleManifest(
                1, "alice", new Uri("wss://relay.example.com/"), new string('0', 32), publisher.Fingerprint, "office", certificate.ExportCertificatePem(), null,
                [new BridgeGrant(5432, "127.0.0.1", 5432)], null),
            Keys.ExportPem(key, passphrase));
        return (bundle, bundle.ToZip(publisher), publisher);
    }

    [Fact]
    public async Task A_store_is_closed_when_what_is_being_written_is_and_takes_nothing_afterwards()
    {
        using var folder = new TempDirectory();
        for (var round = 0; round < 30; round++)
        {
            var store = new PublisherStore(folder.File($"{round}.db"));
            var began = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            var written = 0;
            var writing = Task.Run(() =>
            {
                while (true)
                {
                    store.Audit([new AuditRecord(TimeProvider.System.GetUtcNow(), "login", "alice")]);
                    written++;
                    began.TrySetResult();
                }
            });
            await Task.WhenAny(began.Task, writing).WaitAsync(TestTimeouts.Step);

            store.Dispose();

            await Assert.ThrowsAsync<ObjectDisposedException>(() => writing.WaitAsync(TestTimeouts.Step));
            using var again = new PublisherStore(folder.File($"{round}.db"));
            Assert.Equal(written, again.ReadAudit("alice", null, int.MaxValue).Count);
        }
    }

    [Fact]
    public void A_bundle_that_was_truncated_anywhere_is_refused()
    {
        var (_, zip, publisher) = MakeBundle();
        using var kept = publisher;
        for (var length = 0; length < zip.Length; length += 7)
            Assert.Equal(BridgeError.Damaged, Assert.Throws<BridgeException>(() => Bundle.FromZip(zip[..length])).Code);
    }

    [Fact]
    public void A_bundle_that_was_edited_anywhere_is_refused_or_means_the_same()
    {
        var (bundle, zip, publisher) = MakeBundle();
        using var kept = publisher;
        var refused = 0;
        for (var at = 0; at < zip.Length; at += 3)
        {
            var edited = zip.ToArray();
            edited[at] ^= 0x11;
            try
            {
                // A zip file has bytes that mean nothing: the times of its entries.
                var read = Bundle.FromZip(edited);
                Assert.Equal(bundle.KeyPem, read.KeyPem);
                Assert.Equal(bundle.Manifest with { Grants = [] }, read.Manifest with { Grants = [] });
                Assert.Equal(bundle.Manifest.Grants, read.Manifest.Grants);
            }
            catch (BridgeException e)
            {
                Assert.Equal(BridgeError.Damaged, e.Code);
                refused++;
            }
        }

        Assert.True(refused > zip.Length / 6, $"only {refused} edits were refused");
    }

    [Fact]
    public void A_bundle_signed_by_somebody_else_is_refused()
    {
        var (bundle, _, publisher) = MakeBundle();
        using var kept = publisher;
        using var other = PublisherIdentity.Create();
        var e = Assert.Throws<BridgeException>(() => Bundle.FromZip(bundle.ToZip(other)));
        Assert.Contains("another publisher", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_passphrase_opens_its_bundle_and_no_other_does()
    {
        var (_, zip, publisher) = MakeBundle("correct horse battery");
        using var kept = publisher;
        using var folder = new TempDirectory();
        var state = new StateDirectory(folder.File("state"));
        var bundle = Bundle.FromZip(zip);

        Assert.Contains("has a passphrase", Assert.Throws<BridgeException>(() => state.Import(bundle, null, null)).Message, StringComparison.Ordinal);
        Assert.Contains("not the one", Assert.Throws<BridgeException>(() => state.Import(bundle, "wrong", null)).Message, StringComparison.Ordinal);
        Assert.Equal(("alice@office", true), state.Import(bundle, "correct horse battery", null));
        Assert.Equal(("alice@office", false), state.Import(bundle, "correct horse battery", null));
        using var user = state.LoadUser("alice@office");
        Assert.True(user.HasPrivateKey);
    }

    [Fact]
    public void A_requested_key_never_leaves_and_its_bundle_opens_where_it_is_and_nowhere_else()
    {
        using var folder = new TempDirectory();
        var state = new StateDirectory(folder.File("state"));
        using var publisher = PublisherIdentity.Create();
        var request = CertificateRequest.LoadSigningRequestPem(state.CreateRequest("alice"), HashAlgorithmName.SHA256);
        using var certificate = publisher.Issue("alice", request.PublicKey);
        var zip = new Bundle(
            new BundleManifest(
                1, "alice", new Uri("wss://relay.example.com/"), new string('0', 32), publisher.Fingerprint, "office", certificate.ExportCertificatePem(), null, [], null),
            null).ToZip(publisher);

        Assert.Contains("there is no key", Assert.Throws<BridgeException>(() => new StateDirectory(folder.File("other")).Import(Bundle.FromZip(zip), null, null)).Message, StringComparison.Ordinal);
        var (name, _) = state.Import(Bundle.FromZip(zip), null, null);
        using var user = state.LoadUser(name);
        Assert.Equal(Keys.Fingerprint(certificate), Keys.Fingerprint(user));
    }

    [Fact]
    public void Contexts_are_chosen_renamed_deleted_and_checked()
    {
        using var folder = new TempDirectory();
        var state = new StateDirectory(folder.File("state"));
        var (_, first, one) = MakeBundle();
        var (_, second, two) = MakeBundle();
        using var keptOne = one;
        using var keptTwo = two;
        state.Import(Bundle.FromZip(first), null, null);
        state.Import(Bundle.FromZip(second), null, null);

        Assert.Equal(["alice@office", "alice@office-2"], state.ContextNames);
        Assert.Equal("alice@office", state.Resolve(ContextKind.Consumer, null));
        state.UseContext("alice@office-2");
        state.RenameContext("alice@office-2", "second");
        Assert.Equal("second", state.Resolve(ContextKind.Consumer, null));
        Assert.Throws<BridgeException>(() => state.Resolve(ContextKind.Publisher, "second"));
        Assert.Throws<BridgeException>(() => state.RenameContext("second", "../outside"));
        state.DeleteContext("second");
        Assert.Equal(["alice@office"], state.ContextNames);

        File.WriteAllText(Path.Combine(folder.File("state"), "contexts", "alice@office", "context.json"), "{ \"version\": 1");
        Assert.Equal(BridgeError.Damaged, Assert.Throws<BridgeException>(() => state.Load("alice@office")).Code);
    }

    [Fact]
    public void A_publisher_that_joins_beside_another_does_not_take_its_place()
    {
        using var folder = new TempDirectory();
        var state = new StateDirectory(folder.File("state"));
        foreach (var name in new[] { "first", "second" })
        {
            using var identity = PublisherIdentity.Create();
            state.CreatePublisher(name, new BridgeContext(1, ContextKind.Publisher, new Uri("ws://localhost/"), "", identity.Fingerprint, name), identity);
            Assert.Equal(name == "first", state.IsDefault(ContextKind.Publisher, name));
        }

        Assert.Equal("first", state.Resolve(ContextKind.Publisher, null));
        state.DeleteContext("first");
        Assert.True(state.IsDefault(ContextKind.Publisher, "second"));
    }

    [Fact]
    public void A_context_moves_to_another_machine_whole()
    {
        using var folder = new TempDirectory();
        var (here, there) = (new StateDirectory(folder.File("here")), new StateDirectory(folder.File("there")));
        var (_, zip, publisher) = MakeBundle();
        using var kept = publisher;
        here.Import(Bundle.FromZip(zip), null, null);
        ContextArchive.Export(here, "alice@office", folder.File("moved.zip"));

        Assert.Equal("alice@office", ContextArchive.TryImport(there, folder.File("moved.zip"), null));
        Assert.Equal(here.Load("alice@office") with { Grants = null }, there.Load("alice@office") with { Grants = null });
        using var user = there.LoadUser("alice@office");
        Assert.True(user.HasPrivateKey);
        Assert.Null(ContextArchive.TryImport(there, folder.Write("other.zip", "no zip file"), null));
    }

    [Theory]
    [InlineData("\"version\": 1", "\"version\": 9", "is of version 9")]
    [InlineData("\"kind\"", "\"kin\"", "is damaged")]
    public void A_context_that_is_not_whole_leaves_nothing_behind(string part, string instead, string problem)
    {
        using var folder = new TempDirectory();
        var (here, there) = (new StateDirectory(folder.File("here")), new StateDirectory(folder.File("there")));
        var (_, zip, publisher) = MakeBundle();
        using var kept = publisher;
        here.Import(Bundle.FromZip(zip), null, null);
        ContextArchive.Export(here, "alice@office", folder.File("moved.zip"));
        using (var archive = ZipFile.Open(folder.File("moved.zip"), ZipArchiveMode.Update))
        {
            string text;
            using (var reader = new StreamReader(archive.GetEntry("context.json")!.Open()))
                text = reader.ReadToEnd();
            Assert.Contains(part, text, StringComparison.Ordinal);
            archive.GetEntry("context.json")!.Delete();
            using var writer = new StreamWriter(archive.CreateEntry("context.json").Open());
            writer.Write(text.Replace(part, instead, StringComparison.Ordinal));
        }

        var e = Assert.Throws<BridgeException>(() => ContextArchive.TryImport(there, folder.File("moved.zip"), null));

        Assert.Equal(BridgeError.Damaged, e.Code);
        Assert.Contains(problem, e.Message, StringComparison.Ordinal);
        Assert.Empty(there.ContextNames);
        Assert.Empty(Directory.GetFiles(folder.File("there"), "*", SearchOption.AllDirectories));
    }

    [Fact]
    public void A_code_is_tried_with_one_key_until_it_is_known_what_became_of_it()
    {
        using var folder = new TempDirectory();
        var state = new StateDirectory(folder.File("state"));
        var code = InvitationCode.Create();
        using var first = state.BeginJoin(code);
        using var again = state.BeginJoin(code.ToUpperInvariant());
        using var other = state.BeginJoin(InvitationCode.Create());
        Assert.Equal(first.Fingerprint, again.Fingerprint);
        Assert.NotEqual(first.Fingerprint, other.Fingerprint);
        Assert.Empty(state.LooseFiles());

        state.EndJoin(code);
        state.EndJoin(code);

        using var anew = state.BeginJoin(code);
        Assert.NotEqual(first.Fingerprint, anew.Fingerprint);
    }

    [Fact]
    public void A_context_has_a_socket_however_long_its_name_is()
    {
        var state = new StateDirectory("/home/firstname.lastname/.local/state/vtunnel");
        var names = new[] { "alice@office", $"alice@{new string('o', 50)}", $"alice@{new string('p', 50)}", "relay", "server~4194304" };
        var paths = names.Select(state.SocketPath).ToList();
        Assert.All(paths, path => Assert.True(path.Length <= StateDirectory.MaxSocketPathBytes, path));
        Assert.Equal(names.Length, paths.Distinct().Count());
        Assert.Equal("alice@office.sock", Path.GetFileName(paths[0]));
        Assert.Equal(paths[1], state.SocketPath(names[1]));
    }

    [Fact]
    public void A_full_disk_leaves_the_state_as_it_was()
    {
        using var folder = new TempDirectory();
        using var store = RelayStore.Initialize(folder.File("relay"), "localhost", new Uri("ws://localhost/"));
        var known = store.Invite(Now, TimeSpan.FromDays(1));
        using (var limit = new SqliteConnection($"Data Source={Path.Combine(folder.File("relay"), RelayStore.FileName)};Pooling=False"))
        {
            limit.Open();
            using var command = limit.CreateCommand();
            command.CommandText = "PRAGMA wal_checkpoint(TRUNCATE)";
            command.ExecuteNonQuery();
        }

        // SQLite's own limit gives the error of a full disk (SQLITE_FULL).
        store.LimitPages();
        BridgeException? full = null;
        for (var tries = 0; full is null && tries < 2000; tries++)
            full = Record.Exception(() => store.Invite(Now, TimeSpan.FromDays(1))) as BridgeException;

        Assert.Equal(BridgeError.Storage, full?.Code);
        Assert.Contains("the disk is full", full!.Message, StringComparison.Ordinal);
        using var identity = PublisherIdentity.Create();
        Assert.NotNull(store.Settings);
        Assert.NotNull(known);
        Assert.Empty(store.List());
    }

    [Fact]
    public void A_state_of_a_later_version_and_one_that_is_no_database_are_refused()
    {
        using var folder = new TempDirectory();
        using (RelayStore.Initialize(folder.File("relay"), "localhost", new Uri("ws://localhost/")))
        {
        }

        var path = Path.Combine(folder.File("relay"), RelayStore.FileName);
        using (var connection = new SqliteConnection($"Data Source={path};Pooling=False"))
        {
            connection.Open();
            using var command = connection.CreateCommand();
            command.CommandText = "PRAGMA user_version = 99";
            command.ExecuteNonQuery();
        }

        Assert.Contains("later version", Assert.Throws<BridgeException>(() => RelayStore.Open(folder.File("relay"))).Message, StringComparison.Ordinal);
        File.WriteAllText(path, "this is no database, but long enough to be looked at as one: " + new string('x', 5000));
        Assert.Equal(BridgeError.Damaged, Assert.Throws<BridgeException>(() => RelayStore.Open(folder.File("relay"))).Code);
    }

    [Fact]
    public void A_folder_that_cannot_be_written_is_told_as_such()
    {
        using var folder = new TempDirectory();
        var file = folder.Write("file", "");
        var e = Assert.Throws<BridgeException>(() => RelayStore.Initialize(Path.Combine(file, "relay"), "localhost", new Uri("ws://localhost/")));
        Assert.Equal(BridgeError.Storage, e.Code);
        Assert.Contains("--state-dir", e.Message, StringComparison.Ordinal);
    }

    /// <summary>A link to itself is what even the superuser cannot look into.</summary>
    [Fact]
    public void What_cannot_be_looked_into_is_not_taken_for_what_is_not_there()
    {
        using var folder = new TempDirectory();
        var loop = folder.File("loop");
        File.CreateSymbolicLink(loop, loop);
        foreach (var path in new[] { folder.Write("file", ""), "/dev/null", loop })
            Assert.Equal(BridgeError.Storage, Assert.Throws<BridgeException>(new StateDirectory(path).RequireReadable).Code);
        new StateDirectory(folder.File("none")).RequireReadable();

        // Nor is what lies in it.
        var state = new StateDirectory(folder.File("state"));
        Directory.CreateDirectory(Path.Combine(state.Path, "contexts"));
        foreach (var name in new[] { "config.json", "relay.db", "contexts/office" })
            File.CreateSymbolicLink(Path.Combine(state.Path, name), Path.Combine(state.Path, name));
        Assert.Equal(BridgeError.Storage, Assert.Throws<BridgeException>(() => state.CurrentContext).Code);
        Assert.Equal(BridgeError.Storage, Assert.Throws<BridgeException>(() => RelayStore.Open(state.Path)).Code);
        Assert.Equal(BridgeError.Storage, Assert.Throws<BridgeException>(() => state.Load("office")).Code);
    }

    [Fact]
    public void A_snapshot_of_a_file_that_is_in_use_has_what_lies_in_its_log()
    {
        using var folder = new TempDirectory();
        using var store = new PublisherStore(folder.File("publisher.db"));
        store.CreateUser("alice", "k", new UserCredentials("c", null), new UserChange(), null, Now);
        store.RevokeUser("alice", Now);
        File.WriteAllBytes(folder.File("copy.db"), SqliteFile.Snapshot(folder.File("publisher.db")));

        using var copy = new PublisherStore(folder.File("copy.db"));
        Assert.Equal(["created", "revoked"], copy.ReadAudit("alice", null, int.MaxValue).Select(record => record.Kind));
        Assert.DoesNotContain(Directory.GetFiles(folder.Path), file => file.EndsWith(".new", StringComparison.Ordinal));
    }

    [Fact]
    public void The_audit_of_a_change_says_all_that_a_user_may_from_then_on()
    {
        using var folder = new TempDirectory();
        using var store = new PublisherStore(folder.File("publisher.db"));
        store.CreateUser("alice", "k", new UserCredentials("c", null), new UserChange { Add = [new BridgeGrant(80, "h", 8080)] }, null, Now);
        store.EditUser("alice", new UserChange { ChangesExpiry = true, Expires = new DateTimeOffset(2999, 1, 31, 0, 0, 0, TimeSpan.Zero) }, Now);
        store.EditUser("alice", new UserChange { SingleSession = true }, Now);
        store.EditUser("alice", new UserChange { ChangesExpiry = true, Expires = null, Remove = [80] }, Now);
        Assert.Equal(
            [
                "may reach 80:h:8080",
                "may reach 80:h:8080 until 2999-01-31T00:00:00.000Z",
                "may reach 80:h:8080 until 2999-01-31T00:00:00.000Z, one session at a time",
                "may reach nothing, one session at a time",
            ],
            store.ReadAudit("alice", null, int.MaxValue).Select(record => record.Detail));
    }

    [Fact]
    public void The_audit_of_a_change_is_whole_however_long_and_a_change_of_an_application_is_one_of_its_users()
    {
        using var folder = new TempDirectory();
        using var store = new PublisherStore(folder.File("publisher.db"));
        store.CreateApp("web", [new BridgeGrant(8080, "10.0.0.7", 80)], Now);
        var many = Enumerable.Range(1, 100).Select(number => new BridgeGrant(number, "host.example.test", number)).ToList();
        store.CreateUser("alice", "k", new UserCredentials("c", null), new UserChange { Add = many, AddApps = ["web"], SingleSession = true }, null, Now);
        store.EditApp("web", [new BridgeGrant(8081, "10.0.0.9", 81)], [8080], Now);

        var records = store.ReadAudit(null, null, int.MaxValue);
        Assert.Equal("application web was created: 8080:10.0.0.7:80", records[0].Detail);
        Assert.EndsWith(", one session at a time", records[1].Detail, StringComparison.Ordinal);
        Assert.All(many, grant => Assert.Contains(grant.ToString(), records[1].Detail, StringComparison.Ordinal));
        Assert.Equal("application web was changed: 8081:10.0.0.9:81", records[2].Detail);
        Assert.Equal("alice", records[3].User);
        Assert.Contains("8081:10.0.0.9:81", records[3].Detail, StringComparison.Ordinal);
        Assert.DoesNotContain("8080:10.0.0.7:80", records[3].Detail, StringComparison.Ordinal);
    }

    [Fact]
    public void A_key_without_its_context_is_found_and_a_folder_of_something_else_is_not_taken_for_one()
    {
        using var folder = new TempDirectory();
        var state = new StateDirectory(folder.File("state"));
        Assert.Null(state.FindKeyWithoutContext("office"));
        using var identity = PublisherIdentity.Create();
        state.CreatePublisher("office", new BridgeContext(1, ContextKind.Publisher, new Uri("ws://localhost/"), "", identity.Fingerprint, "office"), identity);
        Assert.Null(state.FindKeyWithoutContext("office"));

        File.Delete(Path.Combine(state.FolderOf("office"), "context.json"));
        using (var found = state.FindKeyWithoutContext("office"))
            Assert.Equal(identity.Fingerprint, found!.Fingerprint);

        File.Delete(Path.Combine(state.FolderOf("office"), "publisher.pem"));
        Assert.Contains("is in the way", Assert.Throws<BridgeException>(() => state.FindKeyWithoutContext("office")).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Grants_that_would_not_fit_into_their_message_are_refused_with_their_length()
    {
        using var folder = new TempDirectory();
        using var store = new PublisherStore(folder.File("publisher.db"));
        var longest = GrantsOfLength("alice", 65_535);
        store.CreateUser("alice", "k", new UserCredentials("c", null), new UserChange { Add = longest }, null, Now);
        Assert.Equal(65_535, new BridgeGrants("alice", store.FindUser("alice")!.Grants).ToLine().Json.Length);

        var one = longest[^1] with { Host = longest[^1].Host + "x" };
        var refused = Assert.Throws<BridgeException>(() => store.EditUser("alice", new UserChange { Add = [one] }, Now));
        Assert.Equal(BridgeError.Invalid, refused.Code);
        Assert.StartsWith(
            "the grants of user 'alice' would take 65536 bytes in the message that tells them; 65535 is the limit", refused.Message, StringComparison.Ordinal);
        Assert.Equal(longest, store.FindUser("alice")!.Grants);

        // What comes by an application counts too.
        store.CreateApp("web", [], Now);
        store.EditUser("alice", new UserChange { AddApps = ["web"] }, Now);
        Assert.Contains("65535 is the limit", Assert.Throws<BridgeException>(() => store.EditApp("web", [new BridgeGrant(80, "h", 80)], [], Now)).Message, StringComparison.Ordinal);
    }

    /// <summary>Grants whose message has just this length; a letter beyond ASCII takes six bytes there.</summary>
    private static BridgeGrant[] GrantsOfLength(string user, int length)
    {
        var grants = Enumerable.Range(0, 100).Select(number => new BridgeGrant(10_000 + number, $"h{number:000}", 80)).ToArray();
        for (var at = 0; ; at++)
        {
            var left = length - new BridgeGrants(user, grants).Length;
            var letters = Math.Min(left / 6, 200);
            grants[at] = grants[at] with { Host = grants[at].Host + new string('ä', letters) + new string('a', letters < 200 ? left % 6 : 0) };
            if (letters < 200)
                return grants;
        }
    }

    [Fact]
    public void A_context_in_use_is_exported_with_what_lies_in_the_log_of_its_database()
    {
        using var folder = new TempDirectory();
        var (here, there) = (new StateDirectory(folder.File("here")), new StateDirectory(folder.File("there")));
        var (_, zip, publisher) = MakeBundle();
        using var kept = publisher;
        var name = here.Import(Bundle.FromZip(zip), null, null).Name;
        using (var store = here.OpenPublisherStore(name))
        {
            store.CreateUser("alice", "k", new UserCredentials("c", null), new UserChange(), null, Now);
            store.RevokeUser("alice", Now);
            Assert.True(new FileInfo(Path.Combine(here.FolderOf(name), "publisher.db-wal")).Length > 0);
            ContextArchive.Export(here, name, folder.File("moved.zip"));
            Assert.DoesNotContain(Directory.GetFiles(here.FolderOf(name)), file => file.EndsWith(".new", StringComparison.Ordinal));
        }

        using (var archive = System.IO.Compression.ZipFile.OpenRead(folder.File("moved.zip")))
        {
            Assert.Contains(archive.Entries, entry => entry.Name == "publisher.db");
            Assert.DoesNotContain(archive.Entries, entry => entry.Name.StartsWith("publisher.db-", StringComparison.Ordinal));
        }

        ContextArchive.TryImport(there, folder.File("moved.zip"), null);
        using var moved = there.OpenPublisherStore(name);
        Assert.Equal(["created", "revoked"], moved.ReadAudit("alice", null, int.MaxValue).Select(record => record.Kind));
    }

    [Fact]
    public void A_database_that_cannot_be_copied_leaves_no_copy_behind()
    {
        using var folder = new TempDirectory();
        var path = folder.Write("publisher.db", "this is no database, but long enough to be looked at as one: " + new string('x', 5000));
        Assert.Equal(BridgeError.Damaged, Assert.Throws<BridgeException>(() => SqliteFile.Snapshot(path)).Code);
        Assert.Equal([path], Directory.GetFiles(folder.Path));

        // One that cannot be opened is not damaged.
        File.Delete(path);
        Directory.CreateDirectory(path);
        Assert.Equal(BridgeError.Storage, Assert.Throws<BridgeException>(() => SqliteFile.Snapshot(path)).Code);
        Assert.Empty(Directory.GetFiles(folder.Path));
    }

    [Fact]
    public void The_audit_keeps_the_newest_records_and_finds_those_of_a_user()
    {
        using var folder = new TempDirectory();
        using var store = new PublisherStore(folder.File("publisher.db"));
        store.Audit([.. Enumerable.Range(0, AuditTable.MaxRecords).Select(number => new AuditRecord(Now, "stream-end", "alice", $"t:{number}"))]);
        store.Audit([.. Enumerable.Range(0, 500).Select(number => new AuditRecord(Now, "login", "bob"))]);

        Assert.Equal(AuditTable.MaxRecords, store.ReadAudit(null, null, int.MaxValue).Count);
        Assert.Equal(500, store.ReadAudit("bob", null, int.MaxValue).Count);
        Assert.Equal("t:500", store.ReadAudit("alice", null, int.MaxValue)[0].Target);
        Assert.Empty(store.ReadAudit("alice", Now + TimeSpan.FromHours(1), 10));
    }

    [Theory]
    [InlineData("denied")]
    [InlineData("refused")]
    public void Refusals_push_out_each_other_and_nothing_else(string kind)
    {
        using var folder = new TempDirectory();
        using var store = new PublisherStore(folder.File("publisher.db"));
        store.CreateUser("alice", "k", new UserCredentials("c", null), new UserChange(), null, Now);
        store.Audit([new AuditRecord(Now, "login", "alice")]);
        for (var batch = 0; batch < 3; batch++)
            store.Audit([.. Enumerable.Range(0, 1000).Select(number => new AuditRecord(Now, kind, "mallory", Detail: $"{(batch * 1000) + number}"))]);
        store.RevokeUser("alice", Now);

        Assert.Equal(["created", "login", "revoked"], store.ReadAudit("alice", null, int.MaxValue).Select(record => record.Kind));
        var kept = store.ReadAudit("mallory", null, int.MaxValue);
        Assert.Equal(AuditTable.MaxRefusals, kept.Count);
        Assert.Equal("2000", kept[0].Detail);
    }

    [Fact]
    public void What_users_do_does_not_push_out_what_was_changed()
    {
        using var folder = new TempDirectory();
        using var store = new PublisherStore(folder.File("publisher.db"));
        store.CreateUser("alice", "k", new UserCredentials("c", null), new UserChange(), null, Now);
        store.RevokeUser("alice", Now);
        store.Audit([.. Enumerable.Range(0, 3000).Select(number => new AuditRecord(Now, "denied", "mallory"))]);
        string[] kinds = ["login", "stream-open", "stream-end", "ended", "logout"];
        store.Audit([.. Enumerable.Range(0, AuditTable.MaxRecords).Select(number => new AuditRecord(Now, kinds[number % kinds.Length], "bob"))]);

        var kept = store.ReadAudit(null, null, int.MaxValue);
        Assert.Equal(AuditTable.MaxRecords, kept.Count);
        Assert.Equal(["created", "revoked"], kept.Where(record => record.User == "alice").Select(record => record.Kind));
        Assert.Equal(AuditTable.MaxRefusals, kept.Count(record => record.Kind == "denied"));

        // Changes have a bound, too, so that there is room for the rest.
        store.Audit([.. Enumerable.Range(0, AuditTable.MaxChanges + 10).Select(number => new AuditRecord(Now, "changed", null))]);
        kept = store.ReadAudit(null, null, int.MaxValue);
        Assert.Equal(AuditTable.MaxRecords, kept.Count);
        Assert.Equal(AuditTable.MaxChanges, kept.Count(record => record.Kind == "changed"));
        Assert.Equal(AuditTable.MaxRecords - AuditTable.MaxChanges - AuditTable.MaxRefusals, kept.Count(record => record.User == "bob"));
    }

    [Fact]
    public void An_audit_that_was_full_of_refusals_before_they_had_a_bound_takes_what_comes()
    {
        using var folder = new TempDirectory();
        var path = folder.File("publisher.db");
        using var store = new PublisherStore(path);
        using (var connection = new SqliteConnection($"Data Source={path};Pooling=False"))
        {
            connection.Open();
            using var command = connection.CreateCommand();
            command.CommandText =
                """
                WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 20000)
                INSERT INTO audit (time, kind) SELECT '2026-01-01T00:00:00.000Z', 'refused' FROM numbers
                """;
            command.ExecuteNonQuery();
        }

        store.Audit([new AuditRecord(Now, "login", "alice")]);

        Assert.Equal(AuditTable.MaxRefusals + 1, store.ReadAudit(null, null, int.MaxValue).Count);
        Assert.Single(store.ReadAudit("alice", null, 10));
    }

    [Fact]
    public void A_code_that_is_not_open_is_found_out_without_writing()
    {
        using var folder = new TempDirectory();
        using var store = RelayStore.Initialize(folder.File("relay"), "localhost", new Uri("ws://localhost/"));
        using var watcher = RelayStore.Open(folder.File("relay"));
        using var office = PublisherIdentity.Create();
        using var other = PublisherIdentity.Create();
        var now = Now;
        var (used, expired) = (store.Invite(now, TimeSpan.FromHours(1)), store.Invite(now - TimeSpan.FromHours(2), TimeSpan.FromHours(1)));
        Assert.Null(store.Enrol(used, office.Certificate, "office", now));
        var before = watcher.DataVersion;

        Assert.Contains("used by", store.Enrol(used, other.Certificate, "other", now), StringComparison.Ordinal);
        Assert.Contains("expired", store.Enrol(expired, other.Certificate, "other", now), StringComparison.Ordinal);
        Assert.Contains("no such", store.Enrol("abcd-abcd", other.Certificate, "other", now), StringComparison.Ordinal);

        // Nor does whoever has used it write anything by showing it again, under whatever name: it could push others out of the audit.
        Assert.Null(store.Enrol(used, office.Certificate, "another name", now));
        Assert.Equal(before, watcher.DataVersion);
        Assert.Equal("office", Assert.Single(store.List()).Name);
    }

    [Fact]
    public void An_invitation_is_listed_while_it_can_be_used_and_enrols_nobody_once_it_is_withdrawn()
    {
        using var folder = new TempDirectory();
        using var store = RelayStore.Initialize(folder.File("relay"), "localhost", new Uri("ws://localhost/"));
        using var office = PublisherIdentity.Create();
        var now = DateTimeOffset.FromUnixTimeSeconds(Now.ToUnixTimeSeconds()); // The file keeps milliseconds.
        store.Invite(now - TimeSpan.FromHours(2), TimeSpan.FromHours(1));
        var used = store.Invite(now - TimeSpan.FromMinutes(3), TimeSpan.FromHours(1));
        Assert.Null(store.Enrol(used, office.Certificate, "office", now));
        var (byCode, byId, kept) = (
            store.Invite(now - TimeSpan.FromMinutes(2), TimeSpan.FromHours(1)), store.Invite(now - TimeSpan.FromMinutes(1), TimeSpan.FromHours(1)), store.Invite(now, TimeSpan.FromHours(1)));

        var open = store.ListInvitations(now);
        Assert.Equal([now - TimeSpan.FromMinutes(2), now - TimeSpan.FromMinutes(1), now], open.Select(invitation => invitation.Created));
        Assert.Equal(open[0].Created + TimeSpan.FromHours(1), open[0].Expires);

        Assert.Equal(open[0], store.Withdraw(byCode.ToUpperInvariant(), now));
        Assert.Equal(open[1], store.Withdraw(open[1].Id[..6], now));
        Assert.Equal([open[2]], store.ListInvitations(now));
        Assert.Contains("no such code", store.Enrol(byCode, office.Certificate, "office", now), StringComparison.Ordinal);
        Assert.Contains("no such code", store.Enrol(byId, office.Certificate, "office", now), StringComparison.Ordinal);
        Assert.Equal([open[0].Id, open[1].Id], store.ReadAudit(null, null, 2).Select(record => record.Detail));

        foreach (var gone in new[] { used, byCode, open[0].Id, open[2].Id[..5] })
        {
            var e = Assert.Throws<BridgeException>(() => store.Withdraw(gone, now));
            Assert.Contains("'vtunnel relay invitations' shows which are open", e.Message, StringComparison.Ordinal);
            Assert.DoesNotContain(gone, e.Message, StringComparison.Ordinal);
        }

        Assert.Null(store.Enrol(used, office.Certificate, "office", now));
        Assert.Null(store.Enrol(kept, office.Certificate, "office", now));
        Assert.Empty(store.ListInvitations(now));
    }

    [Fact]
    public void Two_targets_cannot_share_a_local_port_and_nothing_is_kept_of_the_attempt()
    {
        using var folder = new TempDirectory();
        using var store = new PublisherStore(folder.File("publisher.db"));
        store.CreateApp("web", [new BridgeGrant(8080, "10.0.0.7", 80)], Now);
        var e = Assert.Throws<BridgeException>(() => store.CreateUser(
            "alice", "k", new UserCredentials("c", null), new UserChange { Add = [new BridgeGrant(8080, "127.0.0.1", 8080)], AddApps = ["web"] }, null, Now));
        Assert.Contains("local port 8080", e.Message, StringComparison.Ordinal);
        Assert.Empty(store.ListUsers());
    }
}
