using System.Net;
using System.Net.Http.Headers;
using System.Net.Sockets;
using System.Net.WebSockets;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using VTunnel.Actors.Tests.Hosting;
using VTunnel.Bridge.Identity;
using VTunnel.Bridge.Relay;
using VTunnel.Bridge.State;
using VTunnel.Bridge.Wire;
using VTunnel.Carriers;
using VTunnel.Protocol.Bridge;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.Actors.Tests.Bridge;

/// <summary>Who gets in where, and what everybody else sees.</summary>
public sealed class AdmissionTests
{
    private static DateTimeOffset Now => TimeProvider.System.GetUtcNow();

    private static Uri Http(BridgeHouse house, string path = "/") => new($"http://127.0.0.1:{house.Url.Port}{path}");

    private static async Task<string> DescribeAsync(HttpResponseMessage response)
    {
        var headers = response.Headers.Concat(response.Content.Headers).Where(header => header.Key != "Date").OrderBy(header => header.Key, StringComparer.Ordinal);
        return $"{(int)response.StatusCode} {string.Join("; ", headers.Select(header => $"{header.Key}: {string.Join(',', header.Value)}"))} {await response.Content.ReadAsStringAsync()}";
    }

    [Fact]
    public async Task A_probe_sees_the_same_404_whatever_it_tries()
    {
        await using var house = await BridgeHouse.StartAsync();
        var publisher = await house.JoinAsync("office");
        using var identity = publisher.LoadPublisher("publisher");
        using var http = new HttpClient();
        var answers = new HashSet<string>();
        foreach (var path in new[] { "/", "/health", "/index.html", "/relay", "/..%2f" })
        {
            foreach (var method in new[] { HttpMethod.Get, HttpMethod.Post, HttpMethod.Put, HttpMethod.Options })
            {
                using var request = new HttpRequestMessage(method, Http(house, path));
                answers.Add(await DescribeAsync(await http.SendAsync(request)));
            }
        }

        string[] tokens =
        [
            "nonsense", "a.b", $"{new string('a', 9000)}.b", Admit(house, identity, AdmissionKind.Publish, audience: "another-relay"),
            Admit(house, identity, AdmissionKind.Publish, time: Now - TimeSpan.FromHours(1)), Admit(house, identity, AdmissionKind.Publish),
            Admit(house, identity, AdmissionKind.Enrol, audience: "wrong-code"), Admit(house, identity, AdmissionKind.Publish)[..^4] + "AAAA",
        ];
        foreach (var token in tokens)
        {
            using var request = new HttpRequestMessage(HttpMethod.Get, Http(house));
            request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", token);
            answers.Add(await DescribeAsync(await http.SendAsync(request)));
        }

        Assert.Equal("404 Content-Length: 0 ", Assert.Single(answers));
    }

    [Fact]
    public async Task A_probe_sees_the_cover_site_where_there_is_one()
    {
        using var site = new TempDirectory();
        site.Write("index.html", "<h1>Gardening</h1>");
        await using var house = await BridgeHouse.StartAsync(cover: site.Path);
        using var http = new HttpClient();

        Assert.Equal("<h1>Gardening</h1>", await http.GetStringAsync(Http(house)));
        Assert.Equal(HttpStatusCode.NotFound, (await http.GetAsync(Http(house, "/relay.db"))).StatusCode);

        // Behind the site the relay is as it was.
        await using var service = TargetServer.StartEcho();
        var port = FreePorts.Next();
        var publisher = await house.JoinAsync("office");
        var user = house.CreateUser(publisher, "alice", new BridgeGrant(port, "127.0.0.1", service.Port));
        house.Serve(publisher);
        await house.ConnectAsync(user);
        await Payload.EchoOnceAsync(port).WaitAsync(TestTimeouts.Step);
    }

    [Fact]
    public async Task An_admission_works_once()
    {
        await using var house = await BridgeHouse.StartAsync();
        var publisher = await house.JoinAsync("office");
        using var identity = publisher.LoadPublisher("publisher");
        var overheard = Admit(house, identity, AdmissionKind.Publish);

        using var first = await UpgradeAsync(house, overheard);
        Assert.Equal(WebSocketState.Open, first.State);
        var refused = await Assert.ThrowsAsync<WebSocketException>(() => UpgradeAsync(house, overheard));
        Assert.Contains("404", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_is_not_admitted_takes_no_place_from_what_is()
    {
        // One place for the enrolment, one for the publisher below.
        await using var house = await BridgeHouse.StartAsync(new RelayOptions { MaxAdmissions = 2 });
        var publisher = await house.JoinAsync("office");
        using var identity = publisher.LoadPublisher("publisher");
        using var stranger = PublisherIdentity.Create();
        using var http = new HttpClient();
        var answers = new HashSet<string>();
        foreach (var kind in Enum.GetValues<AdmissionKind>())
        {
            // With keys of its own, which cost nothing, of its own publisher and of one that is enrolled.
            foreach (var tenant in new[] { stranger, identity })
            {
                var token = Admit(house, stranger, kind, kind == AdmissionKind.Enrol ? "wrong-code" : null, tenant: tenant.Fingerprint);
                answers.Add(await DescribeAsync(await SendAsync(http, house, HttpMethod.Get, token)));
            }
        }

        Assert.Equal("404 Content-Length: 0 ", Assert.Single(answers));
        using var first = await UpgradeAsync(house, Admit(house, identity, AdmissionKind.Publish));
        Assert.Equal(WebSocketState.Open, first.State);

        // And now there is no place left.
        await Assert.ThrowsAsync<WebSocketException>(() => UpgradeAsync(house, Admit(house, identity, AdmissionKind.Publish)));
    }

    [Fact]
    public async Task An_enrolment_that_was_overheard_is_of_no_use()
    {
        await using var house = await BridgeHouse.StartAsync();
        using var identity = PublisherIdentity.Create();
        using var http = new HttpClient();
        var overheard = Admit(house, identity, AdmissionKind.Enrol, house.Store.Invite(Now, TimeSpan.FromHours(1)));

        using var first = await SendAsync(http, house, HttpMethod.Post, overheard);
        using var again = await SendAsync(http, house, HttpMethod.Post, overheard);

        Assert.Equal(HttpStatusCode.OK, first.StatusCode);
        Assert.Equal("404 Content-Length: 0 ", await DescribeAsync(again));
    }

    [Fact]
    public async Task An_admission_that_was_shown_by_a_plain_request_works_no_more()
    {
        await using var house = await BridgeHouse.StartAsync();
        var publisher = await house.JoinAsync("office");
        using var identity = publisher.LoadPublisher("publisher");
        using var http = new HttpClient();
        var shown = Admit(house, identity, AdmissionKind.Publish);

        Assert.Equal("404 Content-Length: 0 ", await DescribeAsync(await SendAsync(http, house, HttpMethod.Get, shown)));

        await Assert.ThrowsAsync<WebSocketException>(() => UpgradeAsync(house, shown));
    }

    [Fact]
    public async Task A_user_of_one_publisher_gets_nowhere_at_another()
    {
        await using var house = await BridgeHouse.StartAsync();
        var office = await house.JoinAsync("office");
        var other = await house.JoinAsync("other");
        var eve = house.CreateUser(other, "eve", new BridgeGrant(1000, "127.0.0.1", 1));
        using var certificate = eve.LoadUser("user");
        var (target, relay) = (office.Load("publisher").Publisher, eve.Relay("user"));

        // The relay does not pass eve on to a publisher that has not issued her certificate ...
        using var dialer = new RelayDialer(relay, target, certificate, TestTimeouts.Step, TimeProvider.System);
        var refused = await Assert.ThrowsAsync<TunnelConnectException>(() => dialer.DialAsync(AdmissionKind.Consume, null, CancellationToken.None));
        Assert.Equal(ConnectError.Forbidden, refused.Code);

        // ... and if it did, the publisher would not take it.
        using var identity = office.LoadPublisher("publisher");
        var (near, far) = await SocketPairAsync();
        var accepting = EndToEndTls.AcceptAsync(near, "eve", identity, CancellationToken.None);
        var dialling = Record.ExceptionAsync(async () =>
        {
            var carrier = await EndToEndTls.ConnectAsync(far, "office", certificate, identity.Fingerprint, CancellationToken.None);
            await carrier.ReceiveAsync(new byte[10]);
        });
        var rejected = await Assert.ThrowsAsync<TunnelConnectException>(() => accepting.WaitAsync(TestTimeouts.Step));
        Assert.Contains("not one of this publisher's", rejected.Message, StringComparison.Ordinal);
        Assert.NotNull(await dialling.WaitAsync(TestTimeouts.Step));
    }

    [Fact]
    public async Task A_publisher_that_is_not_the_pinned_one_is_refused_by_the_consumer()
    {
        using var pinned = PublisherIdentity.Create();
        using var impostor = PublisherIdentity.Create();
        using var key = Keys.Create();
        using var issued = pinned.Issue("alice", new PublicKey(key));
        using var user = issued.CopyWithPrivateKey(key);
        var (near, far) = await SocketPairAsync();
        var accepting = Record.ExceptionAsync(() => EndToEndTls.AcceptAsync(near, "alice", impostor, CancellationToken.None));

        var refused = await Assert.ThrowsAsync<TunnelConnectException>(
            () => EndToEndTls.ConnectAsync(far, "office", user, pinned.Fingerprint, CancellationToken.None).WaitAsync(TestTimeouts.Step));

        Assert.Equal(ConnectError.TlsFailed, refused.Code);
        Assert.Contains("is not the publisher", refused.Message, StringComparison.Ordinal);
        Assert.NotNull(await accepting.WaitAsync(TestTimeouts.Step));
    }

    [Fact]
    public async Task A_user_cannot_pass_for_the_publisher_with_a_certificate_that_the_publisher_issued()
    {
        using var publisher = PublisherIdentity.Create();
        using var key = Keys.Create();
        using var issued = publisher.Issue("mallory", new PublicKey(key));
        using var forged = Keys.Create();

        // A certificate issued by mallory's own is not one of the publisher's, either.
        var request = new CertificateRequest(Keys.Name("alice"), forged, HashAlgorithmName.SHA256);
        using var below = request.Create(issued.SubjectName, X509SignatureGenerator.CreateForECDsa(key), Keys.NotBefore, Keys.NotAfter, Keys.SerialNumber());

        Assert.True(Keys.IsIssuedBy(issued, publisher.Certificate));
        Assert.False(Keys.IsIssuedBy(below, publisher.Certificate));
        Assert.NotEqual(publisher.Fingerprint, Keys.Fingerprint(issued));
    }

    [Fact]
    public async Task A_consumer_that_asks_for_what_is_not_granted_is_reset_and_the_target_never_hears_of_it()
    {
        await using var forbidden = TargetServer.StartEcho();
        await using var granted = TargetServer.StartEcho();
        await using var house = await BridgeHouse.StartAsync();
        var (open, closed) = (FreePorts.Next(), FreePorts.Next());
        var publisher = await house.JoinAsync("office");
        var user = house.CreateUser(publisher, "eve", new BridgeGrant(open, "127.0.0.1", granted.Port));

        // A consumer that believes what it likes: its checks are for comfort, the publisher's count.
        user.SaveGrants("user", [new BridgeGrant(open, "127.0.0.1", granted.Port), new BridgeGrant(closed, "127.0.0.1", forbidden.Port)]);
        await house.ConnectAsync(user);
        using var visitor = await Payload.ConnectAsync(closed);
        await visitor.GetStream().WriteAsync(new byte[100]);
        house.Serve(publisher);

        var end = await Record.ExceptionAsync(() => Payload.ReceiveAsync(visitor.GetStream(), 1).WaitAsync(TestTimeouts.Step));

        Assert.IsType<IOException>(end);
        Assert.Equal(0, forbidden.ConnectionCount);
        await house.LoggedAsync("eve asked for", $"127.0.0.1:{forbidden.Port}");
        await house.LoggedAsync("says", "is not granted to you");
        await Payload.EchoOnceAsync(open).WaitAsync(TestTimeouts.Step);
        using var store = publisher.OpenPublisherStore("publisher");
        await house.LoggedAsync("Audit: stream-end");
        await WaitUntilAsync(() => store.ReadAudit("eve", null, 100).Any(record => record.Kind == "denied" && record.Target == $"127.0.0.1:{forbidden.Port}"));
        await WaitUntilAsync(() => store.ReadAudit("eve", null, 100).Any(
            record => record.Kind == "stream-end" && record.Target == $"127.0.0.1:{granted.Port}" && record is { BytesIn: 1000, BytesOut: 1000, Duration: not null }));
    }

    [Theory]
    [InlineData(26)]
    [InlineData(-26)]
    public async Task A_wrong_clock_keeps_nobody_out(int hours)
    {
        var clock = new WrongClock(TimeSpan.FromHours(hours));
        await using var service = TargetServer.StartEcho();
        await using var house = await BridgeHouse.StartAsync();
        var port = FreePorts.Next();
        var publisher = await house.JoinAsync("office", clock: clock);
        var user = house.CreateUser(publisher, "alice", new BridgeGrant(port, "127.0.0.1", service.Port));
        house.Serve(publisher, clock);
        await house.ConnectAsync(user, clock);

        await Payload.EchoOnceAsync(port).WaitAsync(TestTimeouts.Step);
    }

    [Fact]
    public async Task A_code_enrols_one_publisher_once()
    {
        await using var house = await BridgeHouse.StartAsync();
        var code = house.Store.Invite(Now, TimeSpan.FromHours(1));
        await house.JoinAsync("first", code);

        var used = await Assert.ThrowsAsync<TunnelConnectException>(() => house.JoinAsync("second", code));
        var wrong = await Assert.ThrowsAsync<TunnelConnectException>(() => house.JoinAsync("third", "abcd-abcd-abcd-abcd-abcd-abcd-abcd-abcd"));
        var late = await Assert.ThrowsAsync<TunnelConnectException>(() => house.JoinAsync("fourth", house.Store.Invite(Now - TimeSpan.FromHours(2), TimeSpan.FromHours(1))));

        Assert.All([used, wrong, late], e => Assert.Equal(ConnectError.Unauthorized, e.Code));
        await house.LoggedAsync("An enrolment from", "the code was used by publisher");
        await house.LoggedAsync("An enrolment from", "there is no such code");
        await house.LoggedAsync("An enrolment from", "the code expired at");
        Assert.Equal(3, house.Store.ReadAudit(null, null, 100).Count(record => record.Kind == "refused"));
        Assert.Equal(["first"], house.Store.List().Select(publisher => publisher.Name));
    }

    [Fact]
    public async Task Of_enrolments_at_the_same_time_with_one_code_one_succeeds()
    {
        await using var house = await BridgeHouse.StartAsync();
        var code = house.Store.Invite(Now, TimeSpan.FromHours(1));

        var results = await Task.WhenAll(Enumerable.Range(0, 8).Select(number => Record.ExceptionAsync(() => house.JoinAsync($"publisher-{number}", code))));

        Assert.Single(results, e => e is null);
        Assert.Single(house.Store.List());
    }

    [Fact]
    public async Task Enrolments_at_the_same_time_with_a_code_each_all_succeed()
    {
        await using var house = await BridgeHouse.StartAsync();
        var codes = Enumerable.Range(0, 4).Select(_ => house.Store.Invite(Now, TimeSpan.FromHours(1))).ToArray();

        await Task.WhenAll(codes.Select((code, number) => house.JoinAsync($"publisher-{number}", code)));

        Assert.Equal(4, house.Store.List().Count);
    }

    [Fact]
    public async Task A_publisher_at_its_limit_of_connections_refuses_further_ones_and_nobody_else_notices()
    {
        await using var service = TargetServer.StartEcho();
        await using var house = await BridgeHouse.StartAsync(new RelayOptions { MaxStreamsPerPublisher = 1 });
        var ports = FreePorts.Next(3);
        var office = await house.JoinAsync("office");
        var other = await house.JoinAsync("other");
        var alice = house.CreateUser(office, "alice", new BridgeGrant(ports[0], "127.0.0.1", service.Port));
        var bob = house.CreateUser(office, "bob", new BridgeGrant(ports[1], "127.0.0.1", service.Port));
        var carol = house.CreateUser(other, "carol", new BridgeGrant(ports[2], "127.0.0.1", service.Port));
        house.Serve(office);
        house.Serve(other);
        await house.ConnectAsync(alice);
        await Payload.EchoOnceAsync(ports[0]).WaitAsync(TestTimeouts.Step);

        await house.ConnectAsync(bob);
        await house.LoggedAsync("No connection to office", "at its limit of connections");
        await house.ConnectAsync(carol);
        await Payload.EchoOnceAsync(ports[2]).WaitAsync(TestTimeouts.Step);
        await Payload.EchoOnceAsync(ports[0]).WaitAsync(TestTimeouts.Step);
    }

    [Fact]
    public async Task A_user_that_takes_all_it_can_at_the_relay_leaves_room_for_others()
    {
        await using var service = TargetServer.StartEcho();
        await using var house = await BridgeHouse.StartAsync(
            new RelayOptions { MaxWaitingPerPublisher = 4, MaxWaitingPerUser = 2, PublisherTimeout = TimeSpan.FromMinutes(10) });
        var port = FreePorts.Next();
        var office = await house.JoinAsync("office");
        var mallory = house.CreateUser(office, "mallory");
        var bob = house.CreateUser(office, "bob", new BridgeGrant(port, "127.0.0.1", service.Port));

        // The relay does not know who was revoked.
        using (var store = office.OpenPublisherStore("publisher"))
            store.RevokeUser("mallory", Now);
        using var greedy = await GreedyAsync(mallory, 6);
        for (var number = 0; number < 4; number++)
            Assert.Contains("too many connections of this user", await greedy.NextRefusalAsync(), StringComparison.Ordinal);
        Assert.Equal(2, Assert.Single((await house.Relay.GetStatusAsync()).Publishers).Waiting);

        await house.ConnectAsync(bob);
        await WaitUntilAsync(async () => Assert.Single((await house.Relay.GetStatusAsync()).Publishers).Waiting == 3);
        house.Serve(office);

        await Payload.EchoOnceAsync(port).WaitAsync(TestTimeouts.Step);
    }

    [Fact]
    public async Task A_user_that_is_admitted_cannot_take_all_connections_of_its_publisher()
    {
        await using var service = TargetServer.StartEcho();
        await using var house = await BridgeHouse.StartAsync(
            new RelayOptions { MaxStreamsPerPublisher = 3, MaxStreamsPerUser = 2, PublisherTimeout = TimeSpan.FromMinutes(10) });
        var port = FreePorts.Next();
        var office = await house.JoinAsync("office");
        var mallory = house.CreateUser(office, "mallory");
        var bob = house.CreateUser(office, "bob", new BridgeGrant(port, "127.0.0.1", service.Port));
        house.Serve(office, options: BridgeHouse.Quick with { HandshakeTimeout = TimeSpan.FromMinutes(10) });

        using var greedy = await GreedyAsync(mallory, 5);
        for (var number = 0; number < 3; number++)
            Assert.Equal("this user is at its limit of connections", await greedy.NextRefusalAsync());
        await house.ConnectAsync(bob);

        await Payload.EchoOnceAsync(port).WaitAsync(TestTimeouts.Step);
    }

    [Fact]
    public async Task A_user_that_hangs_up_while_it_waits_leaves_its_place()
    {
        await using var house = await BridgeHouse.StartAsync(new RelayOptions { PublisherTimeout = TimeSpan.FromMinutes(10) });
        var office = await house.JoinAsync("office");
        var alice = house.CreateUser(office, "alice");
        using (await GreedyAsync(alice, 3))
            await WaitUntilAsync(async () => (await house.Relay.GetStatusAsync()).Publishers is [{ Waiting: 3 }]);

        await WaitUntilAsync(async () => (await house.Relay.GetStatusAsync()).Publishers is []);
    }

    [Fact]
    public async Task A_user_that_hangs_up_before_it_says_anything_was_not_refused()
    {
        await using var house = await BridgeHouse.StartAsync();
        var office = await house.JoinAsync("office");
        var alice = house.CreateUser(office, "alice");
        var publisher = house.Serve(office);
        await WaitUntilAsync(async () => (await publisher.GetStateAsync()).IsConnected);

        // As 'vtunnel test' asks the relay whether it admits this user.
        using (await GreedyAsync(alice, 1))
            await WaitUntilAsync(async () => (await house.Relay.GetStatusAsync()).Publishers is [{ Streams: 1 }]);

        await house.LoggedAsync("hung up before it said anything");
        await publisher.DisposeAsync();
        using var store = office.OpenPublisherStore("publisher");
        Assert.DoesNotContain(store.ReadAudit(null, null, 100), record => record.Kind == "refused");
        Assert.DoesNotContain(house.Log.Lines.Lines, line => line.Contains("did not get in", StringComparison.Ordinal));
    }

    [Fact]
    public async Task The_audit_has_a_user_that_is_deleted_a_target_that_is_down_and_the_publishers_own_start_and_stop()
    {
        await using var house = await BridgeHouse.StartAsync();
        var (local, dead) = (FreePorts.Next(), FreePorts.Next());
        var office = await house.JoinAsync("office");
        var alice = house.CreateUser(office, "alice", new BridgeGrant(local, "127.0.0.1", dead));
        var publisher = house.Serve(office);
        await house.ConnectAsync(alice);
        await house.LoggedAsync("Connected to office");
        using (var visitor = await Payload.ConnectAsync(local))
            await house.LoggedAsync("Audit: stream-failed");

        using var store = office.OpenPublisherStore("publisher");
        store.DeleteUser("alice", Now);
        await house.LoggedAsync("Audit: logout, user alice");
        await publisher.DisposeAsync();

        var records = store.ReadAudit(null, null, 100).Where(record => record.Kind is not "deleted").ToList();
        Assert.Equal(["created", "started", "login", "stream-failed", "ended", "logout", "stopped"], records.Select(record => record.Kind));
        Assert.All(records[2..^1], record => Assert.Equal("alice", record.User));
        Assert.Equal($"127.0.0.1:{dead}", records[3].Target);
        Assert.Contains("cannot reach", records[3].Detail, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_user_that_is_revoked_while_its_session_waits_for_a_connection_is_logged_out_in_the_audit()
    {
        await using var house = await BridgeHouse.StartAsync();
        var office = await house.JoinAsync("office");
        var alice = house.CreateUser(office, "alice");
        var publisher = house.Serve(office);
        await house.ConnectAsync(alice);
        await house.LoggedAsync("Connected to office");
        await WaitUntilAsync(async () => (await publisher.GetStateAsync()).Users.Count == 1);

        // Without the relay the session has no connection and comes by none.
        await house.StopRelayAsync();
        await WaitUntilAsync(async () => (await publisher.GetStateAsync()).Users is [{ IsConnected: false }]);
        using var store = office.OpenPublisherStore("publisher");
        store.RevokeUser("alice", Now);

        await WaitUntilAsync(() => store.ReadAudit("alice", null, 100) is [.., { Kind: "ended" }, { Kind: "logout", Detail: var why }] && why!.Contains("was revoked", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_publisher_that_stops_says_so_at_once_while_open_connections_finish()
    {
        await using var service = TargetServer.StartEcho();
        await using var house = await BridgeHouse.StartAsync();
        var local = FreePorts.Next();
        var office = await house.JoinAsync("office");
        var alice = house.CreateUser(office, "alice", new BridgeGrant(local, "127.0.0.1", service.Port));
        var publisher = house.Serve(office, options: BridgeHouse.Quick with { DrainTimeout = TimeSpan.FromMinutes(10) });
        await house.ConnectAsync(alice);
        using var visitor = await Payload.ConnectAsync(local);
        await Payload.EchoAsync(visitor.GetStream(), 10).WaitAsync(TestTimeouts.Step);

        var stopping = publisher.DisposeAsync().AsTask();

        await house.LoggedAsync("Draining: 1 sessions");
        var state = await publisher.GetStateAsync();
        Assert.Equal((false, "it is stopping; open connections may finish"), (state.IsConnected, state.Problem));
        visitor.Dispose();
        await stopping.WaitAsync(TestTimeouts.Step);
    }

    [Fact]
    public async Task A_session_that_goes_on_over_another_connection_is_shown_with_the_address_of_that_one()
    {
        await using var house = await BridgeHouse.StartAsync();
        var office = await house.JoinAsync("office");
        await using var proxy = FaultProxy.Start(house.Url.Port);
        var alice = house.CreateUser(office, "alice");
        var context = Path.Combine(alice.FolderOf("user"), "context.json");
        await File.WriteAllTextAsync(context, (await File.ReadAllTextAsync(context)).Replace($":{house.Url.Port}/", $":{proxy.Port}/", StringComparison.Ordinal));
        var publisher = house.Serve(office);
        await house.ConnectAsync(alice);
        await house.LoggedAsync("Connected to office");
        await WaitUntilAsync(async () => (await publisher.GetStateAsync()).Users is [{ IsConnected: true }]);
        var before = (await publisher.GetStateAsync()).Users[0].Remote;

        await proxy.CutAsync(ProxyCut.Reset);
        await house.LoggedAsync("goes on over");

        await WaitUntilAsync(async () => (await publisher.GetStateAsync()).Users is [{ IsConnected: true, Remote: var now }] && now != before);
    }

    [Fact]
    public async Task Two_publishers_with_one_key_are_told_why_they_lose_their_connection_and_the_relay_warns()
    {
        await using var house = await BridgeHouse.StartAsync();
        var office = await house.JoinAsync("office");
        var copy = house.State("copy");
        using (var identity = office.LoadPublisher("publisher"))
            copy.CreatePublisher("publisher", office.Load("publisher"), identity);
        var first = house.Serve(office);
        await WaitUntilAsync(async () => (await first.GetStateAsync()).IsConnected);

        house.Serve(copy);

        await house.LoggedAsync("No connection to the relay", "the relay says: replaced by a newer connection of the same identity");
        await house.LoggedAsync("Publisher office", "replaces its connection from 127.0.0.1:");
    }

    [Fact]
    public async Task A_user_is_told_of_a_target_that_is_down_and_not_of_every_visitor()
    {
        await using var service = TargetServer.StartEcho();
        await using var house = await BridgeHouse.StartAsync();
        var ports = FreePorts.Next(3);
        var office = await house.JoinAsync("office");
        var alice = house.CreateUser(office, "alice", new BridgeGrant(ports[0], "127.0.0.1", ports[2]), new BridgeGrant(ports[1], "127.0.0.1", service.Port));

        // Its time stands still.
        house.Serve(office, clock: new Microsoft.Extensions.Time.Testing.FakeTimeProvider(Now));
        await house.ConnectAsync(alice);
        await house.LoggedAsync("Connected to office");
        for (var visit = 0; visit < 3; visit++)
        {
            using var visitor = await Payload.ConnectAsync(ports[0]);
            await Record.ExceptionAsync(() => visitor.GetStream().ReadAsync(new byte[1]).AsTask().WaitAsync(TestTimeouts.Step));
        }

        await house.LoggedAsync("office says", $"127.0.0.1:{ports[2]} is down: cannot reach");

        // What is said afterwards has come, too.
        await Payload.EchoOnceAsync(ports[1]).WaitAsync(TestTimeouts.Step);
        Assert.Single(house.Log.Lines.Lines, line => line.Contains("office says", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_user_has_so_many_sessions_with_a_publisher_and_the_next_one_waits_for_a_place()
    {
        await using var house = await BridgeHouse.StartAsync();
        var office = await house.JoinAsync("office");
        var alice = house.CreateUser(office, "alice");
        var publisher = house.Serve(office, options: BridgeHouse.Quick with { MaxSessionsPerUser = 1 });
        var first = await house.ConnectAsync(alice);
        await WaitUntilAsync(async () => (await publisher.GetStateAsync()).Users is [{ Session: var name }] && name.EndsWith("-1", StringComparison.Ordinal));

        await house.ConnectAsync(alice);
        await house.LoggedAsync("did not get in", "user 'alice' is at its limit of 1 sessions");
        await house.LoggedAsync("No connection to office", "user 'alice' is at its limit of 1 sessions");
        await first.DisposeAsync();

        await WaitUntilAsync(async () => (await publisher.GetStateAsync()).Users is [{ Session: var name }] && name.EndsWith("-2", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_user_that_has_a_place_again_may_use_it()
    {
        await using var service = TargetServer.StartEcho();
        await using var house = await BridgeHouse.StartAsync(new RelayOptions { MaxWaitingPerUser = 1 });
        var ports = FreePorts.Next(2);
        var office = await house.JoinAsync("office");
        var alice = house.CreateUser(office, "alice", [.. ports.Select(port => new BridgeGrant(port, "127.0.0.1", service.Port))]);
        house.Serve(office);

        // One after the other: none waits when the next one comes.
        for (var number = 0; number < 3; number++)
        {
            await using var consumer = await house.ConnectAsync(alice);
            await Payload.EchoOnceAsync(ports[0]).WaitAsync(TestTimeouts.Step);
        }
    }

    [Fact]
    public async Task A_user_that_begins_handshakes_and_does_not_go_on_leaves_room_for_others()
    {
        await using var service = TargetServer.StartEcho();
        await using var house = await BridgeHouse.StartAsync(new RelayOptions { PublisherTimeout = TimeSpan.FromMinutes(10) });
        var port = FreePorts.Next();
        var office = await house.JoinAsync("office");
        var mallory = house.CreateUser(office, "mallory");
        var bob = house.CreateUser(office, "bob", new BridgeGrant(port, "127.0.0.1", service.Port));
        house.Serve(office, options: BridgeHouse.Quick with { MaxHandshakes = 4, MaxHandshakesPerUser = 2, HandshakeTimeout = TimeSpan.FromMinutes(10) });
        using var greedy = await GreedyAsync(mallory, 6);
        await WaitUntilAsync(() => house.Log.Lines.Lines.Count(line => line.Contains("too many of this user at a time", StringComparison.Ordinal)) == 4);

        await house.ConnectAsync(bob);

        await Payload.EchoOnceAsync(port).WaitAsync(TestTimeouts.Step);
    }

    /// <summary>Connections to the relay as one user, which says nothing on them.</summary>
    private static async Task<Greedy> GreedyAsync(StateDirectory user, int count)
    {
        var greedy = new Greedy();
        using var certificate = user.LoadUser("user");
        using var dialer = new RelayDialer(user.Relay("user"), user.Load("user").Publisher, certificate, TestTimeouts.Step, TimeProvider.System);
        for (var number = 0; number < count; number++)
            greedy.Add(await dialer.DialAsync(AdmissionKind.Consume, null, CancellationToken.None));
        return greedy;
    }

    private sealed class Greedy : IDisposable
    {
        private readonly List<WebSocket> _sockets = [];
        private readonly List<Task<string>> _open = [];

        public void Add(WebSocket socket)
        {
            _sockets.Add(socket);
            _open.Add(ReadReasonAsync(socket));
        }

        /// <summary>Waits until one more of them is closed; gives the reason.</summary>
        public async Task<string> NextRefusalAsync()
        {
            var closed = await Task.WhenAny(_open).WaitAsync(TestTimeouts.Step);
            _open.Remove(closed);
            return await closed;
        }

        public void Dispose() => _sockets.ForEach(socket => socket.Dispose());

        private static async Task<string> ReadReasonAsync(WebSocket socket)
        {
            await socket.ReceiveAsync(new byte[1], CancellationToken.None);
            return socket.CloseStatusDescription ?? "";
        }
    }

    private static string Admit(
        BridgeHouse house, PublisherIdentity identity, AdmissionKind kind, string? audience = null, DateTimeOffset? time = null, string? tenant = null)
    {
        using var key = identity.Certificate.GetECDsaPrivateKey()!;
        return new Admission(
            kind,
            audience ?? house.Store.Settings.Id,
            tenant ?? identity.Fingerprint,
            (time ?? Now).ToUnixTimeSeconds(),
            Admission.NewNonce(),
            identity.Certificate.RawData).Sign(key);
    }

    private static async Task<HttpResponseMessage> SendAsync(HttpClient http, BridgeHouse house, HttpMethod method, string admission)
    {
        using var request = new HttpRequestMessage(method, Http(house));
        request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", admission);
        return await http.SendAsync(request);
    }

    private static async Task<ClientWebSocket> UpgradeAsync(BridgeHouse house, string admission)
    {
        var socket = new ClientWebSocket();
        socket.Options.AddSubProtocol(RelayDialer.SubProtocol);
        socket.Options.SetRequestHeader("Authorization", "Bearer " + admission);
        await socket.ConnectAsync(house.Url, CancellationToken.None).WaitAsync(TestTimeouts.Step);
        return socket;
    }

    /// <summary>Two WebSockets that are connected with each other.</summary>
    private static async Task<(WebSocket Near, WebSocket Far)> SocketPairAsync()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        var far = new TcpClient();
        var connecting = far.ConnectAsync((IPEndPoint)listener.LocalEndpoint);
        var near = await listener.AcceptTcpClientAsync();
        await connecting;
        return (
            WebSocket.CreateFromStream(near.GetStream(), new WebSocketCreationOptions { IsServer = true }),
            WebSocket.CreateFromStream(far.GetStream(), new WebSocketCreationOptions { IsServer = false }));
    }

    private static Task WaitUntilAsync(Func<bool> condition) => WaitUntilAsync(() => Task.FromResult(condition()));

    private static Task WaitUntilAsync(Func<Task<bool>> condition) => Ticks.UntilAsync(condition);
}
