// A v1 client, to test a server: node client.mjs SCENARIO URL
import assert from 'node:assert/strict';
import { once } from 'node:events';
import WebSocket from 'ws';
import { Peer, bytes, connectTo, freePort, listen, run, within } from './peer.mjs';

async function connect(url) {
  const socket = new WebSocket(url, { perMessageDeflate: false });
  const peer = new Peer(socket);
  await within(once(socket, 'open'), 'the upgrade');
  return peer;
}

async function openPort(peer) {
  const port = await freePort();
  peer.send({ type: 'listen', port });
  assert.deepEqual(await peer.takeType('listen_ok'), { type: 'listen_ok', port });
  return port;
}

async function openStream(peer, port) {
  const visitor = await connectTo(port);
  const opened = await peer.takeType('connect');
  assert.equal(opened.port, port);
  assert.ok(Number.isInteger(opened.stream_id) && opened.stream_id >= 1);
  return { visitor, id: opened.stream_id };
}

/** A stream that has come and gone shows that the session is as good as new. */
async function expectService(peer, port) {
  const { visitor, id } = await openStream(peer, port);
  visitor.write('question');
  assert.equal((await peer.takeData(id, 8)).toString(), 'question');
  peer.sendData(id, 'answer');
  peer.send({ type: 'close', stream_id: id });
  assert.equal((await visitor.readToEnd()).toString(), 'answer');
  visitor.end();
}

await run({
  async fields_in_any_order_and_form(url) {
    const peer = await connect(url);
    const port = await freePort();
    peer.send(`\n\t{ "port" : ${port} , "type" : "listen" , "local_addr" : "somewhere:80" }\r\n`);
    await peer.takeType('listen_ok');
    const { visitor, id } = await openStream(peer, port);

    peer.send(`{"data":"${Buffer.from('one ').toString('base64')}","stream_id":${id},"type":"data"}`);
    peer.send(`{"stream_id":${id},"type":"d\\u0061ta","data":"${Buffer.from('two ').toString('base64')}"}`);
    const slashes = Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).toString('base64');
    assert.ok(slashes.includes('/'));
    peer.send(`{"type":"data","data":"${slashes.replaceAll('/', '\\/')}","stream_id":${id},"port":0,"error":""}`);
    assert.equal((await visitor.read(4)).toString(), 'one ');
    assert.equal((await visitor.read(4)).toString(), 'two ');
    assert.deepEqual(await visitor.read(6), Buffer.alloc(6, 0xff));

    // What is zero or empty may be left out, be there, or be null.
    peer.send({ type: 'data', stream_id: id });
    peer.send({ type: 'data', stream_id: id, data: '' });
    peer.send({ type: 'data', stream_id: id, data: null, port: null });
    peer.send({ type: 'close', port: 0, data: '', error: '', local_addr: '', stream_id: id });
    assert.equal((await visitor.readToEnd()).length, 0);
    await expectService(peer, port);
  },

  async unknown_types_and_fields(url) {
    const peer = await connect(url);
    const port = await freePort();
    peer.send({ type: 'hello', version: 9, stream_id: 'x', nested: { a: [1, { b: null }] } });
    peer.send({ type: 'listen', port, local_addr: 'x', compression: ['zstd'], priority: { level: 3 } });
    await peer.takeType('listen_ok');
    peer.send({ type: 'window', stream_id: 1, credit: 65536 });
    await expectService(peer, port);
    await peer.expectPong();
  },

  async messages_in_continuation_frames(url) {
    const peer = await connect(url);
    const port = await freePort();

    // Between the bytes of one character, too.
    const asking = Buffer.from(JSON.stringify({ type: 'listen', port, local_addr: 'bücher→例え:80' }));
    for (let at = 1; at < asking.length; at++) {
      peer.sendInFrames([asking.subarray(0, at), asking.subarray(at)]);
      await peer.takeType('listen_ok');
    }
    const { visitor, id } = await openStream(peer, port);

    const payload = bytes(48);
    const data = Buffer.from(JSON.stringify({ type: 'data', stream_id: id, data: payload.toString('base64') }));
    for (let at = 0; at <= data.length; at++) {
      peer.sendInFrames([data.subarray(0, at), data.subarray(at)]);
      assert.deepEqual(await visitor.read(48), payload);
    }

    // Every byte in a frame of its own, empty frames between, and pings in the middle of the message.
    const frames = [];
    for (const byte of data) frames.push(Buffer.from([byte]), Buffer.alloc(0));
    frames.forEach((part, index) => {
      peer.socket.send(part, { binary: false, fin: index === frames.length - 1 });
      if (index % 10 === 0) peer.socket.ping(`ping ${index}`);
    });
    assert.deepEqual(await visitor.read(48), payload);

    const large = bytes(700_000);
    const text = Buffer.from(JSON.stringify({ stream_id: id, data: large.toString('base64'), type: 'data' }));
    const parts = [];
    for (let at = 0; at < text.length;) {
      const end = Math.min(text.length, at + 1 + Math.floor(Math.random() * 60_000));
      parts.push(text.subarray(at, end));
      at = end;
    }
    peer.sendInFrames(parts);
    assert.deepEqual(await visitor.read(large.length), large);
  },

  async payloads_of_all_sizes(url, largest) {
    const peer = await connect(url);
    const port = await openPort(peer);
    const { visitor, id } = await openStream(peer, port);
    for (const length of [1, 2, 3, 4, 1000, 32 * 1024 - 1, 32 * 1024, 32 * 1024 + 1, 100_000, Number(largest)]) {
      const there = bytes(length);
      peer.sendData(id, there);
      assert.ok((await visitor.read(length)).equals(there), `${length} bytes to the visitor`);
      const back = bytes(length);
      visitor.write(back);
      assert.ok((await peer.takeData(id, length)).equals(back), `${length} bytes from the visitor`);
    }
  },

  async a_message_of_exactly_the_limit(url, limit) {
    const peer = await connect(url);
    const frame = '{"type":"ping","fill":""}';
    peer.send(frame.replace('""', `"${'x'.repeat(Number(limit) - frame.length)}"`));
    await peer.takeType('pong');
  },

  async a_message_beyond_the_limit(url, limit) {
    for (const excess of [1, 5_000_000]) {
      const peer = await connect(url);
      peer.send('x'.repeat(Number(limit) + excess));
      const { code, reason } = await within(peer.closed, 'the close');
      assert.equal(code, 1009);
      assert.match(reason, /limit of \d+ bytes/);
    }
    await (await connect(url)).expectPong();
  },

  async a_binary_message(url) {
    const peer = await connect(url);
    peer.socket.send(Buffer.from('{"type":"ping"}'), { binary: true });
    assert.equal((await within(peer.closed, 'the close')).code, 1003);
  },

  async streams_closed_at_any_moment(url) {
    const peer = await connect(url);
    const port = await openPort(peer);
    const payload = bytes(200_000);
    const text = payload.toString('base64');
    const close = id => peer.send({ type: 'close', stream_id: id });

    const endings = [
      // This side ends it before anything was said.
      async ({ visitor, id }) => { close(id); assert.equal((await visitor.readToEnd()).length, 0); },
      // The visitor ends it before anything was said.
      async ({ visitor, id }) => { visitor.end(); assert.equal((await peer.takeData(id)).length, 0); },
      // What was sent before the end arrives before the end.
      async ({ visitor, id }) => {
        peer.send({ type: 'data', stream_id: id, data: text });
        close(id);
        assert.ok((await visitor.readToEnd()).equals(payload));
      },
      async ({ visitor, id }) => { visitor.end(payload); assert.ok((await peer.takeData(id)).equals(payload)); },
      // Both at once; and again what has ended already.
      async ({ visitor, id }) => { visitor.end('x'); close(id); close(id); await visitor.readToEnd(); },
      // The visitor breaks off in the middle of the other's data.
      async ({ visitor, id }) => {
        peer.send({ type: 'data', stream_id: id, data: text });
        visitor.reset();
        peer.send({ type: 'data', stream_id: id, data: text });
        await peer.takeData(id);
      },
      // This side breaks off in the middle of the visitor's data.
      async ({ visitor, id }) => { visitor.write(payload); await peer.takeOf(id); close(id); visitor.end(); await visitor.readToEnd(); },
      // Data after the end.
      async ({ visitor, id }) => {
        close(id);
        peer.send({ type: 'data', stream_id: id, data: text });
        assert.equal((await visitor.readToEnd()).length, 0);
      },
    ];

    for (let round = 0; round < 5; round++) {
      const streams = [];
      for (const ending of endings) streams.push([ending, await openStream(peer, port)]);
      await Promise.all(streams.map(([ending, stream]) => ending(stream)));
      for (const [, { visitor }] of streams) visitor.end();
    }
    await expectService(peer, port);
  },

  async listens_repeated(url) {
    const peer = await connect(url);
    const port = await openPort(peer);
    for (let i = 0; i < 3; i++) {
      peer.send({ type: 'listen', port, local_addr: `target ${i}` });
      assert.equal((await peer.takeType('listen_ok')).port, port);
    }
    await expectService(peer, port);
    await peer.expectPong();
    assert.deepEqual(peer.untaken, []);
  },

  async several_listens_without_waiting(url) {
    const peer = await connect(url);
    const ports = [await freePort(), await freePort(), await freePort()];
    for (const port of ports) peer.send({ type: 'listen', port });
    for (const port of ports) await peer.take(message => message.type === 'listen_ok' && message.port === port, `listen_ok ${port}`);
    for (const port of ports) await expectService(peer, port);
  },

  async a_port_that_is_taken(url) {
    const other = await listen();
    const peer = await connect(url);
    peer.send({ type: 'listen', port: other.port });
    const refused = await peer.takeType('listen_err');
    assert.equal(refused.port, other.port);
    assert.match(refused.error, /in use/);
    await peer.expectPong();
  },

  async ports_are_open_on_loopback_only(url) {
    const peer = await connect(url);
    const port = await openPort(peer);
    await assert.rejects(connectTo(port, '127.0.0.2'), { code: 'ECONNREFUSED' });
    await expectService(peer, port);
  },

  async pings(url) {
    const peer = await connect(url);
    await peer.expectPong();
    await peer.expectPong();
    const answer = once(peer.socket, 'pong');
    peer.socket.ping('are you there?');
    assert.equal((await within(answer, 'a pong frame'))[0].toString(), 'are you there?');
    peer.send({ type: 'pong' });
    await peer.expectPong();
  },

  async a_goodbye_is_returned(url) {
    const peer = await connect(url);
    const port = await openPort(peer);
    peer.socket.close(1000, 'done');
    assert.equal((await within(peer.closed, 'the close')).code, 1000);
    await assert.rejects(async () => {
      for (;;) (await connectTo(port)).reset();
    }, { code: 'ECONNREFUSED' });
  },

  /** Somebody ends the server when this has said READY. */
  async the_server_shuts_down(url) {
    const peer = await connect(url);
    const port = await openPort(peer);
    const { visitor, id } = await openStream(peer, port);
    console.log('READY');

    // In the middle of a conversation.
    const talk = setInterval(() => { if (peer.socket.readyState === WebSocket.OPEN) peer.sendData(id, bytes(20_000)); }, 1);
    const { code } = await within(peer.closed, 'the close');
    clearInterval(talk);
    assert.equal(code, 1001);
    visitor.reset();
  },
});
