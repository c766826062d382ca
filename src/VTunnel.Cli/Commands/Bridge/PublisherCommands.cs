using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using VTunnel.Bridge;
using VTunnel.Bridge.Identity;
using VTunnel.Bridge.State;
using VTunnel.Bridge.Wire;
using VTunnel.Cli.Hosting;
using VTunnel.Cli.Settings;
using VTunnel.Cli.Syntax;
using VTunnel.Options;
using VTunnel.Protocol.Bridge;

namespace VTunnel.Cli.Commands.Bridge;

/// <summary>The publisher's commands: <c>join</c>, and those about users and applications.</summary>
internal static class PublisherCommands
{
    private static readonly ArgumentSpec RelayUrl = new("RELAY-URL", "where the relay is, such as wss://relay.example.com/");
    private static readonly ArgumentSpec Code = new("CODE", "what 'vtunnel relay invite' printed") { Secret = true };
    private static readonly ArgumentSpec UserName = new("NAME", "the name of the user, such as alice");
    private static readonly ArgumentSpec AppName = new("NAME", "the name of the application, such as web");

    private static readonly OptionSpec Name = new("name", "NAME", "What the publisher calls itself; its users and the relay's operator see it.") { CommandLineOnly = true, Default = "the name of this machine" };
    private static readonly OptionSpec NewContext = BridgeCli.Context with { Description = "The name of the new identity on this machine.", Default = "the relay's host name", CommandLineOnly = true };
    private static readonly OptionSpec Authority = new("ca", "FILE", "Trust the authorities in this PEM file for the relay, instead of the system's; bundles carry it to users.");
    private static readonly OptionSpec Map = new("map", "LOCAL:[HOST:]PORT", "A target that may be reached, and the local port that the user gets for it: 5432:5432 is port 5432 of this machine's loopback, 8080:10.0.0.7:80 a machine of this network.") { Letter = 'm', Repeatable = true, CommandLineOnly = true };
    private static readonly OptionSpec App = new("app", "NAME", "An application whose targets may be reached.") { Repeatable = true, CommandLineOnly = true };
    private static readonly OptionSpec From = new("from", "USER", "Begin with what another user may reach.") { CommandLineOnly = true };
    private static readonly OptionSpec Expires = new("expires", "WHEN", "When access ends: 30d, 12h, 2027-01-31, or never.") { CommandLineOnly = true, Default = "never" };
    private static readonly OptionSpec ChangedExpiry = Expires with { Default = null };
    private static readonly OptionSpec Request = new("request", "FILE", "A request that the user made with 'vtunnel request': the key never leaves the user's machine.") { CommandLineOnly = true };
    private static readonly OptionSpec SingleSession = new("single-session", null, "A new session of the user ends an older one.") { CommandLineOnly = true };
    private static readonly OptionSpec ManySessions = new("many-sessions", null, "Allow several sessions of the user at a time again.") { CommandLineOnly = true };
    private static readonly OptionSpec RemovePort = new("remove", "LOCAL", "The local port of a mapping to withdraw.") { Repeatable = true, CommandLineOnly = true };
    private static readonly OptionSpec RemoveApp = new("remove-app", "NAME", "An application to withdraw.") { Repeatable = true, CommandLineOnly = true };
    private static readonly OptionSpec Out = new("out", "FILE", "Where to write the bundle.") { CommandLineOnly = true, Default = "NAME-vtunnel-config.zip" };
    private static readonly OptionSpec Passphrase = new("passphrase", "TEXT", "Encrypt the key in the bundle. Other users of the machine can read a command line: use the variable.") { Secret = true, InConfigFile = false };

    public static readonly CommandSpec Join = new("join", "Enrol this machine as a publisher at a relay.")
    {
        Arguments = [RelayUrl, Code],
        Options = [Name, NewContext, Authority, BridgeCli.StateDir, BridgeCli.Quiet],
        Examples = [new("", "vtunnel join wss://relay.example.com/ abcd-efgh-jkmn-pqrs-tuvw-xyz2-3456-789a")],
        Run = RunJoin,
    };

    private static readonly OptionSpec[] Common = [BridgeCli.Context, BridgeCli.StateDir, BridgeCli.Quiet];

    public static readonly CommandSpec Create = new("create", "Add a user or an application.")
    {
        Commands =
        [
            new("user", "Add a user and say what it may reach.")
            {
                Arguments = [UserName],
                Options = [Map, App, From, Expires, Request, SingleSession, .. Common],
                Examples =
                [
                    new("A database on this machine and a web site beside it:", "vtunnel create user alice -m 5432:5432 -m 8080:10.0.0.7:80"),
                    new("What an application needs, for a month:", "vtunnel create user bob --app web --expires 30d"),
                ],
                Run = RunCreateUser,
            },
            new("app", "Add an application: targets under one name, to grant together.")
            {
                Arguments = [AppName],
                Options = [Map, .. Common],
                Examples = [new("", "vtunnel create app web -m 8080:80")],
                Run = RunCreateApp,
            },
        ],
        Examples = [new("", "vtunnel create user alice -m 5432:5432")],
    };

    public static readonly CommandSpec List = new("list", "List users or applications.")
    {
        Commands =
        [
            new("users", "List the users and what each may reach.")
            {
                Options = [BridgeCli.Json, .. Common],
                Examples = [new("", "vtunnel list users")],
                Run = RunListUsers,
            },
            new("apps", "List the applications and their targets.")
            {
                Options = [BridgeCli.Json, .. Common],
                Examples = [new("", "vtunnel list apps")],
                Run = RunListApps,
            },
        ],
        Examples = [new("", "vtunnel list users")],
    };

    public static readonly CommandSpec Show = new("show", "Show a user.")
    {
        Commands =
        [
            new("user", "Show all about a user.")
            {
                Arguments = [UserName],
                Options = [BridgeCli.Json, .. Common],
                Examples = [new("", "vtunnel show user alice")],
                Run = RunShowUser,
            },
        ],
        Examples = [new("", "vtunnel show user alice")],
    };

    public static readonly CommandSpec Edit = new("edit", "Change a user or an application; it takes effect at once.")
    {
        Commands =
        [
            new("user", "Change what a user may reach, for how long, and how often at a time.")
            {
                Arguments = [UserName],
                Options = [Map, RemovePort, App, RemoveApp, ChangedExpiry, SingleSession, ManySessions, .. Common],
                Examples =
                [
                    new("Grant one target more, withdraw another:", "vtunnel edit user alice -m 6379:6379 --remove 8080"),
                    new("Until the end of the year:", "vtunnel edit user alice --expires 2027-01-01"),
                ],
                Run = RunEditUser,
            },
            new("app", "Change the targets of an application, for all who have it.")
            {
                Arguments = [AppName],
                Options = [Map, RemovePort, .. Common],
                Examples = [new("", "vtunnel edit app web -m 8443:443 --remove 8080")],
                Run = RunEditApp,
            },
        ],
        Examples = [new("", "vtunnel edit user alice -m 6379:6379")],
    };

    public static readonly CommandSpec Delete = new("delete", "Delete a user or an application; it takes effect at once.")
    {
        Commands =
        [
            new("user", "Delete a user; its connections are cut at once.")
            {
                Arguments = [UserName],
                Options = Common,
                Examples = [new("", "vtunnel delete user alice")],
                Run = RunDeleteUser,
            },
            new("app", "Delete an application that nobody has.")
            {
                Arguments = [AppName],
                Options = Common,
                Examples = [new("", "vtunnel delete app web")],
                Run = RunDeleteApp,
            },
        ],
        Examples = [new("", "vtunnel delete user alice")],
    };

    public static readonly CommandSpec Revoke = new("revoke", "Refuse a user for good, and keep it in the list.")
    {
        Commands =
        [
            new("user", "Refuse a user from now on; its connections are cut at once.")
            {
                Arguments = [UserName],
                Options = Common,
                Examples = [new("", "vtunnel revoke user alice")],
                Run = RunRevokeUser,
            },
        ],
        Examples = [new("", "vtunnel revoke user alice")],
    };

    public static readonly CommandSpec Export = new("export", "Write what a user needs to connect.")
    {
        Commands =
        [
            new("user", "Write the bundle of a user, with its key in it unless the user made that.")
            {
                Arguments = [UserName],
                Options = [Out, Passphrase, .. Common],
                Examples =
                [
                    new("", "vtunnel export user alice"),
                    new("With a passphrase, to be told on another way:", "VTUNNEL_PASSPHRASE=\"$(cat passphrase)\" vtunnel export user alice --out alice.zip"),
                ],
                Run = RunExportUser,
            },
        ],
        Examples = [new("", "vtunnel export user alice")],
    };

    private static DateTimeOffset Now => TimeProvider.System.GetUtcNow();

    private static Task<int> RunJoin(SettingsReader settings)
    {
        Uri? url = null;
        if (settings.Arguments.Count > 0)
        {
            if (!ValueParsers.ServerUrl(settings.Arguments[0], out url, out var problem))
                settings.Fault(RelayUrl, settings.Arguments[0], problem);
            else if (url.Scheme is not ("ws" or "wss" or "http" or "https"))
                settings.Fault(RelayUrl, settings.Arguments[0], "a URL begins with wss:// (or ws:// for tests)");
        }

        var name = settings.Text(Name) ?? Environment.MachineName;
        var authorityFile = settings.Text(Authority);
        if (authorityFile is not null && OptionRules.CertificateFileProblem(authorityFile) is { } fileProblem)
            settings.Fault(Authority, authorityFile, fileProblem);
        var context = settings.OneOrNull<string>(NewContext, BridgeCli.NameValue);
        return BridgeCli.RunAsync(settings, async () =>
        {
            var state = BridgeCli.State(settings);
            if (context is not null && state.HasContext(context))
                throw new BridgeException(BridgeError.Invalid, $"there is a context '{context}' already; choose another name");
            context ??= state.FreeName(url!.Host);

            // Whatever could go wrong here must not use up the code.
            VTunnel.Bridge.State.StateFolder.RequireWritable(state.Path);
            using var identity = PublisherIdentity.Create();
            using var dialer = new RelayDialer(
                new RelayAddress(url!, "", authorityFile), identity.Fingerprint, identity.Certificate, TimeSpan.FromSeconds(15), TimeProvider.System);
            var relayId = await dialer.EnrolAsync(settings.Arguments[1], name, CancellationToken.None);
            state.CreatePublisher(
                context,
                new BridgeContext(
                    1, ContextKind.Publisher, url!, relayId, identity.Fingerprint, name, authorityFile is null ? null : await File.ReadAllTextAsync(authorityFile)),
                identity);
            return BridgeCli.Tell(
                settings,
                identity.Fingerprint,
                $"This machine is enrolled at {url} as '{OneLine.Of(name)}'.",
                $"Its fingerprint is {identity.Fingerprint}; users' bundles carry it.",
                "Next, add a user:     vtunnel create user alice -m 5432:5432",
                "Then publish:         vtunnel serve");
        });
    }

    private static Task<int> RunCreateUser(SettingsReader settings)
    {
        var name = BridgeCli.Name(settings, 0, UserName);
        var expiry = settings.OneOrNull<ExpiryValue>(Expires, BridgeCli.Expiry);
        var change = new UserChange
        {
            Add = settings.Many<BridgeGrant>(Map, BridgeCli.Mapping),
            AddApps = settings.Many<string>(App, BridgeCli.NameValue),
            ChangesExpiry = expiry is not null,
            Expires = expiry?.Time,
            SingleSession = settings.Switch(SingleSession) ? true : null,
        };
        CheckMappings(settings, change.Add);
        if (expiry?.Time <= Now)
            settings.Fault(Expires, null, "this time is over");
        var from = settings.OneOrNull<string>(From, BridgeCli.NameValue);
        if (settings.Faults.Count == 0 && change.Add.Count == 0 && change.AddApps.Count == 0 && from is null)
            settings.Fault(Map, null, "say what the user may reach, such as -m 5432:5432 (or --app NAME, or --from USER)");
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
                $"Next, write the bundle for '{user.Name}':   vtunnel export user {user.Name}");
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
            throw new BridgeException(BridgeError.Invalid, $"{file}: {OptionRules.FileProblem(e)}", e);
        }
    }

    private static Task<int> RunCreateApp(SettingsReader settings)
    {
        var name = BridgeCli.Name(settings, 0, AppName);
        var maps = settings.Many<BridgeGrant>(Map, BridgeCli.Mapping);
        CheckMappings(settings, maps);
        if (maps.Count == 0 && settings.SourceOf(Map) is null)
            settings.Fault(Map, null, "say what belongs to the application, such as -m 8080:80");
        return WithStore(settings, (store, _) =>
        {
            var app = store.CreateApp(name, maps, Now);
            return BridgeCli.Tell(
                settings,
                app.Name,
                $"Application '{app.Name}' is {BridgeCli.Grants(app.Maps)}.",
                $"Next, grant it:   vtunnel create user bob --app {app.Name}");
        });
    }

    private static Task<int> RunListUsers(SettingsReader settings) => WithStore(settings, (store, _) =>
    {
        var users = store.ListUsers();
        if (settings.Switch(BridgeCli.Json))
        {
            BridgeCli.PrintJson(users);
        }
        else if (settings.Switch(BridgeCli.Quiet))
        {
            foreach (var user in users)
                Console.Out.WriteLine(user.Name);
        }
        else if (users.Count == 0)
        {
            Console.Out.WriteLine("There is no user yet. Next: vtunnel create user alice -m 5432:5432");
        }
        else
        {
            BridgeCli.PrintTable(
                ["USER", "STATE", "EXPIRES", "APPLICATIONS", "MAY REACH"],
                users.Select(user => new[]
                {
                    user.Name, State(user), user.Expires is { } expires ? BridgeCli.Time(expires) : "never", string.Join(", ", user.Apps), BridgeCli.Grants(user.Grants),
                }));
        }

        return ExitCodes.Success;
    });

    private static string State(BridgeUser user) => user.Revoked is not null ? "revoked" : user.Expires <= Now ? "expired" : "admitted";

    private static Task<int> RunListApps(SettingsReader settings) => WithStore(settings, (store, _) =>
    {
        var apps = store.ListApps();
        if (settings.Switch(BridgeCli.Json))
        {
            BridgeCli.PrintJson(apps);
        }
        else if (settings.Switch(BridgeCli.Quiet))
        {
            foreach (var app in apps)
                Console.Out.WriteLine(app.Name);
        }
        else if (apps.Count == 0)
        {
            Console.Out.WriteLine("There is no application yet. Next: vtunnel create app web -m 8080:80");
        }
        else
        {
            BridgeCli.PrintTable(["APPLICATION", "TARGETS"], apps.Select(app => new[] { app.Name, BridgeCli.Grants(app.Maps) }));
        }

        return ExitCodes.Success;
    });

    private static Task<int> RunShowUser(SettingsReader settings)
    {
        var name = BridgeCli.Name(settings, 0, UserName);
        return WithStore(settings, (store, _) =>
        {
            var user = store.FindUser(name) ?? throw new BridgeException(BridgeError.Invalid, $"there is no user '{name}'; 'vtunnel list users' shows those that there are");
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
                $"May reach:    {BridgeCli.Grants(user.Grants)}");
        });
    }

    private static Task<int> RunEditUser(SettingsReader settings)
    {
        var name = BridgeCli.Name(settings, 0, UserName);
        var expiry = settings.OneOrNull<ExpiryValue>(ChangedExpiry, BridgeCli.Expiry);
        var (single, many) = (settings.Switch(SingleSession), settings.Switch(ManySessions));
        if (single && many)
            settings.Fault(ManySessions, null, $"it contradicts {SingleSession.LongName}; give one of the two");
        var change = new UserChange
        {
            Add = settings.Many<BridgeGrant>(Map, BridgeCli.Mapping),
            Remove = settings.Many<int>(RemovePort, BridgeCli.PortNumber),
            AddApps = settings.Many<string>(App, BridgeCli.NameValue),
            RemoveApps = settings.Many<string>(RemoveApp, BridgeCli.NameValue),
            ChangesExpiry = expiry is not null,
            Expires = expiry?.Time,
            SingleSession = single ? true : many ? false : null,
        };
        CheckMappings(settings, change.Add);
        if (settings.Faults.Count == 0 && change is { Add.Count: 0, Remove.Count: 0, AddApps.Count: 0, RemoveApps.Count: 0, ChangesExpiry: false, SingleSession: null })
            settings.Fault(Map, null, "nothing to change; give -m, --remove, --app, --remove-app, --expires, --single-session or --many-sessions");
        return WithStore(settings, (store, _) =>
        {
            var user = store.EditUser(name, change, Now);
            return BridgeCli.Tell(
                settings, user.Name, $"User '{user.Name}' may reach {BridgeCli.Grants(user.Grants)}{(user.Expires is { } expires ? $" until {BridgeCli.Time(expires)}" : "")}. A running publisher applies it within a second.");
        });
    }

    private static Task<int> RunEditApp(SettingsReader settings)
    {
        var name = BridgeCli.Name(settings, 0, AppName);
        var add = settings.Many<BridgeGrant>(Map, BridgeCli.Mapping);
        var remove = settings.Many<int>(RemovePort, BridgeCli.PortNumber);
        CheckMappings(settings, add);
        if (settings.Faults.Count == 0 && add.Count == 0 && remove.Count == 0)
            settings.Fault(Map, null, "nothing to change; give -m or --remove");
        return WithStore(settings, (store, _) =>
        {
            var app = store.EditApp(name, add, remove, Now);
            return BridgeCli.Tell(settings, app.Name, $"Application '{app.Name}' is {BridgeCli.Grants(app.Maps)}. A running publisher applies it within a second.");
        });
    }

    private static Task<int> RunDeleteUser(SettingsReader settings)
    {
        var name = BridgeCli.Name(settings, 0, UserName);
        return WithStore(settings, (store, _) =>
        {
            store.DeleteUser(name, Now);
            return BridgeCli.Tell(settings, name, $"User '{name}' is deleted; a running publisher cuts its connections within a second.");
        });
    }

    private static Task<int> RunDeleteApp(SettingsReader settings)
    {
        var name = BridgeCli.Name(settings, 0, AppName);
        return WithStore(settings, (store, _) =>
        {
            store.DeleteApp(name, Now);
            return BridgeCli.Tell(settings, name, $"Application '{name}' is deleted.");
        });
    }

    private static Task<int> RunRevokeUser(SettingsReader settings)
    {
        var name = BridgeCli.Name(settings, 0, UserName);
        return WithStore(settings, (store, _) =>
        {
            store.RevokeUser(name, Now);
            return BridgeCli.Tell(settings, name, $"User '{name}' is revoked; a running publisher cuts its connections within a second.");
        });
    }

    private static Task<int> RunExportUser(SettingsReader settings)
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
            var user = store.FindUser(name) ?? throw new BridgeException(BridgeError.Invalid, $"there is no user '{name}'; 'vtunnel list users' shows those that there are");
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
            VTunnel.Bridge.State.StateFolder.WritePrivate(path, bundle.ToZip(identity));
            return BridgeCli.Tell(
                settings,
                path,
                $"{path} is all that '{user.Name}' needs{(keyPem is null ? " beside the key that the request was made with" : passphrase is null ? "; it holds a private key, so hand it over in a safe way" : " beside the passphrase")}.",
                $"Next, on the machine of '{user.Name}':   vtunnel connect {Path.GetFileName(path)}");
        });
    }

    private static void CheckMappings(SettingsReader settings, IReadOnlyList<BridgeGrant> maps)
    {
        foreach (var twice in maps.GroupBy(grant => grant.Local).Where(group => group.Count() > 1))
            settings.Fault(Map, null, $"local port {twice.Key} is given {twice.Count()} times; give each target a local port of its own");
    }

    private static Task<int> WithStore(SettingsReader settings, Func<PublisherStore, string, int> command) => BridgeCli.Run(settings, () =>
    {
        var state = BridgeCli.State(settings);
        var context = state.Resolve(ContextKind.Publisher, settings.Text(BridgeCli.Context));
        using var store = state.OpenPublisherStore(context);
        return command(store, context);
    });
}
