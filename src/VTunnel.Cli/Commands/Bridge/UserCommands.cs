using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using VTunnel.Bridge;
using VTunnel.Bridge.Identity;
using VTunnel.Bridge.State;
using VTunnel.Cli.Hosting;
using VTunnel.Cli.Settings;
using VTunnel.Cli.Syntax;
using VTunnel.Options;
using VTunnel.Protocol.Bridge;

namespace VTunnel.Cli.Commands.Bridge;

/// <summary>The publisher's commands about users.</summary>
internal static class UserCommands
{
    private static readonly ArgumentSpec UserName = new("NAME", "the name of the user, such as alice");

    private static readonly OptionSpec App = new("app", "NAME", "An application whose targets may be reached.") { Repeatable = true, CommandLineOnly = true };
    private static readonly OptionSpec From = new("from", "USER", "Begin with what another user may reach.") { CommandLineOnly = true };
    private static readonly OptionSpec Expires = new("expires", "WHEN", "When access ends: 30d, 12h, 2027-01-31, or never.") { CommandLineOnly = true, Default = "never" };
    private static readonly OptionSpec ChangedExpiry = Expires with { Default = null };
    private static readonly OptionSpec Request = new("request", "FILE", "A request that the user made with 'vtunnel request': the key never leaves the user's machine.") { CommandLineOnly = true };
    private static readonly OptionSpec SingleSession = new("single-session", null, "A new session of the user ends an older one.") { CommandLineOnly = true };
    private static readonly OptionSpec ManySessions = new("many-sessions", null, "Allow several sessions of the user at a time again.") { CommandLineOnly = true };
    private static readonly OptionSpec RemoveApp = new("remove-app", "NAME", "An application to withdraw.") { Repeatable = true, CommandLineOnly = true };
    private static readonly OptionSpec Out = new("out", "FILE", "Where to write the bundle.") { CommandLineOnly = true, Default = "NAME-vtunnel-config.zip" };
    private static readonly OptionSpec Passphrase = new("passphrase", "TEXT", "Encrypt the key in the bundle; at least 8 characters. Other users of the machine can read a command line: use the variable.") { Secret = true, InConfigFile = false };

    public static readonly CommandSpec Create = new("user", "Add a user and say what it may reach.")
    {
        Arguments = [UserName],
        Options = [PublisherCli.Map, App, From, Expires, Request, SingleSession, .. PublisherCli.Common],
        Examples =
        [
            new("A database on this machine and a web site beside it:", "vtunnel create user alice -m 5432:5432 -m 8080:10.0.0.7:80"),
            new("What an application needs, for a month:", "vtunnel create user bob --app web --expires 30d"),
        ],
        Run = RunCreate,
    };

    public static readonly CommandSpec List = new("users", "List the users and what each may reach.")
    {
        Options = [BridgeCli.Json, .. PublisherCli.Common],
        Examples = [new("", "vtunnel list users")],
        Run = RunList,
    };

    public static readonly CommandSpec Show = new("user", "Show all about a user.")
    {
        Arguments = [UserName],
        Options = [BridgeCli.Json, .. PublisherCli.Common],
        Examples = [new("", "vtunnel show user alice")],
        Run = RunShow,
    };

    public static readonly CommandSpec Edit = new("user", "Change what a user may reach, for how long, and how often at a time.")
    {
        Arguments = [UserName],
        Options = [PublisherCli.Map, PublisherCli.RemovePort, App, RemoveApp, ChangedExpiry, SingleSession, ManySessions, .. PublisherCli.Common],
        Examples =
        [
            new("Grant one target more, withdraw another:", "vtunnel edit user alice -m 6379:6379 --remove 8080"),
            new("Until the end of the year:", "vtunnel edit user alice --expires 2027-01-01"),
        ],
        Run = RunEdit,
    };

    public static readonly CommandSpec Delete = new("user", "Delete a user; its connections are cut at once.")
    {
        Arguments = [UserName],
        Options = PublisherCli.Common,
        Examples = [new("", "vtunnel delete user alice")],
        Run = RunDelete,
    };

    public static readonly CommandSpec Revoke = new("user", "Refuse a user from now on; its connections are cut at once.")
    {
        Arguments = [UserName],
        Options = PublisherCli.Common,
        Examples = [new("", "vtunnel revoke user alice")],
        Run = RunRevoke,
    };

    public static readonly CommandSpec Export = new("user", "Write the bundle of a user, with its key in it unless the user made that.")
    {
        Arguments = [UserName],
        Options = [Out, Passphrase, .. PublisherCli.Common],
        Examples =
        [
            new("", "vtunnel export user alice"),
            new("With a passphrase, to be told on another way:", "VTUNNEL_PASSPHRASE=\"$(cat passphrase)\" vtunnel export user alice --out alice.zip"),
        ],
        Run = RunExport,
    };

    private static DateTimeOffset Now => TimeProvider.System.GetUtcNow();

    private static Task<int> RunCreate(SettingsReader settings)
    {
        var name = BridgeCli.Name(settings, 0, UserName);
        var expiry = settings.OneOrNull<ExpiryValue>(Expires, BridgeCli.Expiry);
        var change = new UserChange
        {
            Add = settings.Many<BridgeGrant>(PublisherCli.Map, BridgeCli.Mapping),
            AddApps = settings.Many<string>(App, BridgeCli.NameValue),
            ChangesExpiry = expiry is not null,
            Expires = expiry?.Time,
            SingleSession = settings.Switch(SingleSession) ? true : null,
        };
        PublisherCli.CheckMappings(settings, change.Add);
        if (expiry?.Time <= Now)
            settings.Fault(Expires, null, "this time is over");
        var from = settings.OneOrNull<string>(From, BridgeCli.NameValue);
        if (settings.Faults.Count == 0 && change.Add.Count == 0 && change.AddApps.Count == 0 && from is null)
            settings.Fault(PublisherCli.Map, null, "say what the user may reach, such as -m 5432:5432 (or --app NAME, or --from USER)");
        var request = settings.Text(Request);
        return BridgeCli.Run(settings, () =>
        {
            var state = BridgeCli.State(settings);
            var context = state.Resolve(ContextKind.Publisher, settings.Text(BridgeCli.Context));
            using var identity = state.LoadPublisher(context);
            using var store = state.OpenPublisherStore(context);
            using var key = request is null ? Keys.Create() : null;
            var publicKey = key is null ? ReadRequest(request!) : new PublicKey(key);
            using var certificate = identity.Issue(name, publicKey);
            var user = store.CreateUser(
                name,
                Keys.Fingerprint(certificate),
                new UserCredentials(certificate.ExportCertificatePem(), key is null ? null : Keys.ExportPem(key)),
                change,
                from,
                Now);
            return BridgeCli.Tell(
                settings,
                user.Name,
                $"User '{user.Name}' may reach {BridgeCli.Grants(user.Grants)}{(user.Expires is { } expires ? $" until {BridgeCli.Time(expires)}" : "")}.",
                $"Next, write the bundle for '{user.Name}':   {BridgeCli.Command(settings, $"export user {user.Name}")}");
        });
    }

    private static PublicKey ReadRequest(string file)
    {
        try
        {
            var request = CertificateRequest.LoadSigningRequestPem(File.ReadAllText(file), HashAlgorithmName.SHA256);
            using var key = request.PublicKey.GetECDsaPublicKey();
            return key is { KeySize: 256 }
                ? request.PublicKey
                : throw new BridgeException(BridgeError.Invalid, $"{file}: the key is not on P-256; make the request with 'vtunnel request'");
        }
        catch (Exception e) when (e is CryptographicException or ArgumentException)
        {
            throw new BridgeException(BridgeError.Invalid, $"{file}: this is no request, or not a whole one; make it with 'vtunnel request --name NAME --out FILE'", e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new BridgeException(BridgeError.Invalid, $"{file}: {OptionRules.FileProblem(file, e)}", e);
        }
    }

    private static Task<int> RunList(SettingsReader settings) => PublisherCli.WithStore(settings, store =>
        BridgeCli.PrintList(
            settings,
            store.ListUsers(),
            user => user.Name,
            $"There is no user yet. Next: {BridgeCli.Command(settings, "create user alice -m 5432:5432")}",
            ["USER", "STATE", "EXPIRES", "APPLICATIONS", "MAY REACH"],
            user => [user.Name, State(user), user.Expires is { } expires ? BridgeCli.Time(expires) : "never", string.Join(", ", user.Apps), BridgeCli.Grants(user.Grants)]));

    private static string State(BridgeUser user) => user.Revoked is not null ? "revoked" : user.Expires <= Now ? "expired" : "admitted";

    private static Task<int> RunShow(SettingsReader settings)
    {
        var name = BridgeCli.Name(settings, 0, UserName);
        return PublisherCli.WithStore(settings, store =>
        {
            var user = store.FindUser(name) ?? throw new BridgeException(BridgeError.Invalid, $"there is no user '{name}'; '{BridgeCli.Command(settings, "list users")}' shows those that there are");
            if (settings.Switch(BridgeCli.Json))
            {
                BridgeCli.PrintJson(user);
                return ExitCodes.Success;
            }

            return BridgeCli.Tell(
                settings,
                State(user),
                $"User:         {user.Name}",
                $"State:        {State(user)}",
                $"Expires:      {(user.Expires is { } expires ? BridgeCli.Time(expires) : "never")}",
                $"Sessions:     {(user.SingleSession ? "one at a time" : "several at a time")}",
                $"Key:          {user.KeyFingerprint}",
                $"Applications: {string.Join(", ", user.Apps)}",
                $"Own mappings: {BridgeCli.Grants(user.Maps)}",
                $"May reach:    {(user.RefusalAt(Now) is { } refusal ? $"nothing, since {refusal}; granted: " : "")}{BridgeCli.Grants(user.Grants)}");
        });
    }

    private static Task<int> RunEdit(SettingsReader settings)
    {
        var name = BridgeCli.Name(settings, 0, UserName);
        var expiry = settings.OneOrNull<ExpiryValue>(ChangedExpiry, BridgeCli.Expiry);
        var (single, many) = (settings.Switch(SingleSession), settings.Switch(ManySessions));
        if (single && many)
            settings.Fault(ManySessions, null, $"it contradicts {SingleSession.LongName}; give one of the two");
        var change = new UserChange
        {
            Add = settings.Many<BridgeGrant>(PublisherCli.Map, BridgeCli.Mapping),
            Remove = settings.Many<int>(PublisherCli.RemovePort, BridgeCli.PortNumber),
            AddApps = settings.Many<string>(App, BridgeCli.NameValue),
            RemoveApps = settings.Many<string>(RemoveApp, BridgeCli.NameValue),
            ChangesExpiry = expiry is not null,
            Expires = expiry?.Time,
            SingleSession = single ? true : many ? false : null,
        };
        PublisherCli.CheckMappings(settings, change.Add);
        if (settings.Faults.Count == 0 && change is { Add.Count: 0, Remove.Count: 0, AddApps.Count: 0, RemoveApps.Count: 0, ChangesExpiry: false, SingleSession: null })
            settings.Fault(PublisherCli.Map, null, "nothing to change; give -m, --remove, --app, --remove-app, --expires, --single-session or --many-sessions");
        return PublisherCli.WithStore(settings, store =>
        {
            var user = store.EditUser(name, change, Now);
            var granted = $"{BridgeCli.Grants(user.Grants)}{(user.Expires is { } expires ? $" until {BridgeCli.Time(expires)}" : "")}";
            return BridgeCli.Tell(
                settings,
                user.Name,
                user.RefusalAt(Now) is { } refusal
                    ? [$"Granted are now {granted}, but {refusal} and is refused all the same.", HowToAdmit(settings, user)]
                    : [$"User '{user.Name}' may reach {granted}. A running publisher applies it within a second."]);
        });
    }

    private static string HowToAdmit(SettingsReader settings, BridgeUser user) => user.Revoked is null
        ? $"To admit it again:   {BridgeCli.Command(settings, $"edit user {user.Name} --expires never")}"
        : $"Revoked is for good. To admit somebody by this name again:   {BridgeCli.Command(settings, $"delete user {user.Name}")}, then create it anew and hand over a new bundle.";

    private static Task<int> RunDelete(SettingsReader settings)
    {
        var name = BridgeCli.Name(settings, 0, UserName);
        return PublisherCli.WithStore(settings, store =>
        {
            store.DeleteUser(name, Now);
            return BridgeCli.Tell(settings, name, $"User '{name}' is deleted; a running publisher cuts its connections within a second.");
        });
    }

    private static Task<int> RunRevoke(SettingsReader settings)
    {
        var name = BridgeCli.Name(settings, 0, UserName);
        return PublisherCli.WithStore(settings, store =>
        {
            store.RevokeUser(name, Now);
            return BridgeCli.Tell(settings, name, $"User '{name}' is revoked; a running publisher cuts its connections within a second.");
        });
    }

    private static Task<int> RunExport(SettingsReader settings)
    {
        var name = BridgeCli.Name(settings, 0, UserName);
        var path = settings.Text(Out) ?? $"{name}-vtunnel-config.zip";
        var passphrase = settings.Text(Passphrase);
        if (passphrase is { Length: < 8 })
            settings.Fault(Passphrase, null, "a passphrase has at least 8 characters");
        return BridgeCli.Run(settings, () =>
        {
            var state = BridgeCli.State(settings);
            var context = state.Resolve(ContextKind.Publisher, settings.Text(BridgeCli.Context));
            var publisher = state.Load(context);
            using var identity = state.LoadPublisher(context);
            using var store = state.OpenPublisherStore(context);
            var user = store.FindUser(name) ?? throw new BridgeException(BridgeError.Invalid, $"there is no user '{name}'; '{BridgeCli.Command(settings, "list users")}' shows those that there are");
            if (user.RefusalAt(Now) is { } refusal)
                throw new BridgeException(BridgeError.Invalid, $"{refusal}: a bundle would be of no use");
            var credentials = store.GetCredentials(name);
            var keyPem = credentials.KeyPem;
            if (keyPem is not null && passphrase is not null)
            {
                using var key = Keys.ImportPem(keyPem);
                keyPem = Keys.ExportPem(key, passphrase);
            }

            var bundle = new Bundle(
                new BundleManifest(
                    Bundle.CurrentVersion,
                    user.Name,
                    publisher.Relay,
                    publisher.RelayId,
                    publisher.Publisher,
                    publisher.PublisherName,
                    credentials.Certificate,
                    user.Expires,
                    user.Grants,
                    publisher.RelayAuthority),
                keyPem);
            StateFolder.WritePrivate(path, bundle.ToZip(identity));
            return BridgeCli.Tell(
                settings,
                path,
                $"{path} is all that '{user.Name}' needs{(keyPem is null ? " beside the key that the request was made with" : passphrase is null ? "; it holds a private key, so hand it over in a safe way" : " beside the passphrase")}.",
                $"Next, on the machine of '{user.Name}':   vtunnel connect {Path.GetFileName(path)}");
        });
    }
}
