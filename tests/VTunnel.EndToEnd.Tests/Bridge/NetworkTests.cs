using System.Text;
using System.Text.RegularExpressions;
using VTunnel.EndToEnd.Tests.CommandLine;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing;
using VTunnel.Testing.Network;
using VTunnel.Testing.Programs;

namespace VTunnel.EndToEnd.Tests.Bridge;

/// <summary>Three networks of which no two can reach each other but through the relay, on one machine.</summary>
public sealed partial class NetworkTests
{
    /// <summary>
    /// The relay's network is the one of the script itself; publisher and consumer have one each, with a cable to the relay and
    /// no way on from there. Everything ends with the script: it is process 1 of its own namespace.
    /// </summary>
    private const string Networks =
        """
        set -eu
        ip link set lo up
        mount -t tmpfs none /run
        mkdir -p /run/netns "$LAB/relay" "$LAB/publisher" "$LAB/consumer"
        printf '127.0.0.1 localhost\n10.77.0.1 relay.example.com\n' > "$LAB/hosts"
        mount --bind "$LAB/hosts" /etc/hosts
        ip addr add 10.77.0.1/32 dev lo
        number=1
        for role in publisher consumer; do
          ip netns add $role
          ip link add to-$role type veth peer name eth0 netns $role
          ip addr add 10.77.$number.1/24 dev to-$role
          ip link set to-$role up
          ip -n $role link set lo up
          ip -n $role addr add 10.77.$number.2/24 dev eth0
          ip -n $role link set eth0 up
          ip -n $role route add 10.77.0.1 via 10.77.$number.1
          number=$((number + 1))
        done

        # A machine of the publisher's network.
        ip -n publisher addr add 10.0.0.7/32 dev lo
        cp "$CERTIFICATE" "$LAB/relay/fullchain.pem"
        cp "$KEY" "$LAB/relay/privkey.pem"

        # as ROLE COMMAND: with the role's network, home and folder.
        as() {
          role=$1; shift
          enter=""
          [ $role = relay ] || enter="ip netns exec $role"
          (cd "$LAB/$role" && env -u XDG_STATE_HOME HOME="$LAB/$role" $enter bash -eu -c "$1")
        }
        until_works() {
          for attempt in $(seq 200); do
            if "$@" > /dev/null 2>&1; then return; fi
            read -t 0.1 <> <(:) || true
          done
          echo "never worked: $*"; exit 1
        }
        serve() { as publisher "exec nginx -p $LAB/web -e stderr -c $LAB/web/nginx.conf"; }
        """;

    private const string After =
        """
        until_works as consumer 'curl -fsS http://127.0.0.1:8080/page'
        echo "PAGE $(as consumer 'curl -fsS http://127.0.0.1:8080/page') $(as consumer 'curl -fsS http://127.0.0.1:5432/page')"

        # Nobody has a way around the relay.
        as consumer 'timeout 2 bash -c "exec 3<> /dev/tcp/10.77.1.2/5432"' 2> /dev/null && echo "REACHED" || echo "NO WAY TO THE PUBLISHER"
        as publisher 'timeout 2 bash -c "exec 3<> /dev/tcp/10.77.2.2/8080"' 2> /dev/null && echo "REACHED" || echo "NO WAY TO THE CONSUMER"

        # The relay is killed in the middle of a download, and started again.
        as consumer "curl -fsS --limit-rate 15M -o got http://127.0.0.1:8080/large" &
        download=$!
        until_works test -s "$LAB/consumer/got"
        kill -9 $(pgrep -f 'vtunnel relay --tls')
        relay_starts
        wait $download
        cmp "$LAB/web/large" "$LAB/consumer/got" && echo "DOWNLOAD IS WHOLE"
        as relay 'vtunnel status' || true
        as publisher 'vtunnel status'
        as consumer 'vtunnel status' && echo "ALL CONNECTED"
        as consumer 'vtunnel test' && echo "TEST PASSED"
        """;

    private const string Changed =
        """
        until_works as consumer 'exec 3<> /dev/tcp/127.0.0.1/6379'
        as consumer 'curl -fsS -m 2 http://127.0.0.1:8080/page' > /dev/null 2>&1 && echo "STILL OPEN" || echo "GRANT IS GONE"
        echo "LAB IS DONE"
        """;

    [Fact]
    public async Task The_walk_through_of_the_documents_works_as_it_stands()
    {
        await Tools.EnsureInstalledAsync();
        using var certificates = new TestCertificates("relay.example.com");
        using var folder = new TempDirectory();
        var web = folder.MakeDirectory("web");
        await File.WriteAllTextAsync(Path.Combine(web, "page"), "hello");
        var large = new byte[60_000_000];
        Random.Shared.NextBytes(large);
        await File.WriteAllBytesAsync(Path.Combine(web, "large"), large);
        await File.WriteAllTextAsync(Path.Combine(web, "nginx.conf"), $$"""
            daemon off; master_process off; user root; pid {{web}}/nginx.pid; error_log stderr notice;
            events { }
            http {
              access_log off;
              client_body_temp_path {{web}}; proxy_temp_path {{web}}; fastcgi_temp_path {{web}}; uwsgi_temp_path {{web}}; scgi_temp_path {{web}};
              server { listen 127.0.0.1:5432; listen 10.0.0.7:80; root {{web}}; }
            }
            """);
        var script = folder.Write("lab.sh", Script());
        var environment = new Dictionary<string, string?>(Tools.Direct)
        {
            ["LAB"] = folder.Path,
            ["CERTIFICATE"] = certificates.CertificateFile,
            ["KEY"] = certificates.KeyFile,
            ["SSL_CERT_FILE"] = certificates.AuthorityFile,
            ["PATH"] = $"{Path.GetDirectoryName(VTunnelProgram.Path)}:{Tools.SearchPath}",
        };

        // Root in a user namespace of its own: nobody needs to be root outside.
        await using var lab = RunningProgram.Start(
            Tools.Find("unshare"), ["--user", "--map-root-user", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", script], environment);

        await lab.Output.WaitForAsync("LAB IS DONE", timeout: TestTimeouts.Long);
        foreach (var line in new[]
        {
            "PAGE hello hello", "NO WAY TO THE PUBLISHER", "NO WAY TO THE CONSUMER", "DOWNLOAD IS WHOLE", "ALL CONNECTED", "TEST PASSED", "GRANT IS GONE",
        })
            Assert.Contains(line, lab.Output.Lines);
        Assert.DoesNotContain("REACHED", lab.Output.Lines);
    }

    /// <summary>The blocks of the document in their order, each with the network and home of its role.</summary>
    private static string Script()
    {
        var document = File.ReadAllText(Path.Combine(DocumentationTests.FindRoot(), "docs", "bridge.md"));
        var script = new StringBuilder(Networks.ReplaceLineEndings("\n")).Append('\n');
        var blocks = Block().Matches(document).Select(block => (Role: block.Groups[1].Value, Background: block.Groups[2].Success, Commands: block.Groups[3].Value)).ToList();
        Assert.Equal(["relay", "relay", "relay", "publisher", "publisher", "consumer", "publisher"], blocks.Select(block => block.Role));
        var isConnected = false;
        script.Append("serve &\n");
        foreach (var (role, background, commands) in blocks)
        {
            var quoted = commands.Replace("'", "'\\''", StringComparison.Ordinal);
            if (isConnected)
            {
                script.Append(After.ReplaceLineEndings("\n")).Append('\n');
                script.Append($"as {role} '{quoted}'\n").Append(Changed.ReplaceLineEndings("\n")).Append('\n');
            }
            else if (role == "relay" && background)
            {
                script.Append($"relay_starts() {{\n  as relay '{quoted}' &\n  until_works bash -c 'exec 3<> /dev/tcp/10.77.0.1/443'\n}}\nrelay_starts\n");
            }
            else if (commands.Contains("invite", StringComparison.Ordinal))
            {
                script.Append($"as relay '{quoted}' | tee \"$LAB/invitation\"\nCODE=$(grep -Eo '([a-z2-9]{{4}}-){{7}}[a-z2-9]{{4}}' \"$LAB/invitation\" | head -1)\n");
            }
            else if (background)
            {
                script.Append($"as {role} '{quoted}' &\n");
                isConnected = role == "consumer";
            }
            else
            {
                script.Append($"as {role} \"$(sed \"s/CODE/${{CODE:-}}/\" <<'END'\n{commands}END\n)\"\n");
                if (commands.Contains("export user alice", StringComparison.Ordinal))
                    script.Append("cp \"$LAB/publisher/alice-vtunnel-config.zip\" \"$LAB/consumer/\"\n");
            }
        }

        return script.ToString();
    }

    [GeneratedRegex(@"^```bash (relay|publisher|consumer)( &)?\n(.*?)^```$", RegexOptions.Multiline | RegexOptions.Singleline)]
    private static partial Regex Block();
}
