using Akka.Actor;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Time.Testing;
using VTunnel.Bridge.Identity;
using VTunnel.Bridge.Relay;
using VTunnel.Bridge.State;
using VTunnel.Testing;

namespace VTunnel.Actors.Tests.Bridge;

/// <summary>What checking admissions may take from everybody else: the threads that poll the sockets, and the memory of what was shown.</summary>
public sealed class AdmissionWorkTests
{
    [Fact]
    public async Task Nothing_is_checked_on_the_thread_that_the_request_came_on()
    {
        using var folder = new TempDirectory();
        using var store = RelayStore.Initialize(folder.File("relay"), "localhost", new Uri("ws://localhost/"));
        using var endpoint = new RelayEndpoint(store, new RelayOptions(), TimeProvider.System, ActorRefs.Nobody, NullLogger.Instance);
        var context = new DefaultHttpContext();
        context.Request.Headers.Authorization = $"{Admission.Scheme} nonsense";
        Thread? checkedOn = null;
        var handling = Task.CompletedTask;

        var polling = new Thread(() => handling = endpoint.HandleAsync(context, _ => Task.CompletedTask, _ =>
        {
            checkedOn = Thread.CurrentThread;
            return Task.CompletedTask;
        }));
        polling.Start();
        Assert.True(polling.Join(TestTimeouts.Step));
        await handling.WaitAsync(TestTimeouts.Step);

        Assert.NotNull(checkedOn);
        Assert.NotSame(polling, checkedOn);
    }

    [Fact]
    public void Neither_a_user_nor_a_publisher_with_all_its_users_takes_all_places()
    {
        var clock = new FakeTimeProvider(DateTimeOffset.UnixEpoch.AddYears(57));
        var ledger = new AdmissionLedger(clock, new RelayOptions { MaxAdmissions = 6, MaxAdmissionsPerPublisher = 4, MaxAdmissionsPerUser = 2 });

        Assert.True(Take("office", "alice"));
        Assert.True(Take("office", "alice"));
        Assert.False(Take("office", "alice"));
        Assert.True(Take("office", "office", isUser: false));
        Assert.True(Take("office", "office", isUser: false));
        Assert.False(Take("office", "office", isUser: false));
        Assert.False(Take("office", "bob"));
        Assert.True(Take("plant", "carol"));
        Assert.True(Take("plant", "plant", isUser: false));
        Assert.False(Take("lab", "dave"));

        // What is forgotten gives its places back, all three.
        clock.Advance(new RelayOptions().AdmissionWindow * 2 + TimeSpan.FromSeconds(1));
        Assert.True(Take("office", "alice"));
        Assert.True(Take("office", "alice"));
        Assert.False(Take("office", "alice"));
        Assert.True(Take("office", "bob"));
        Assert.True(Take("office", "bob"));
        Assert.False(Take("office", "office", isUser: false));

        bool Take(string tenant, string holder, bool isUser = true) => ledger.TryTake(
            new Admission(AdmissionKind.Consume, "relay", tenant, clock.GetUtcNow().ToUnixTimeSeconds(), Admission.NewNonce(), []), holder, isUser);
    }
}
