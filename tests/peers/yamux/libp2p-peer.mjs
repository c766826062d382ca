// @chainsafe/libp2p-yamux over TCP: `node libp2p-peer.mjs dialer|acceptor` listens on an ephemeral loopback port,
// prints it, serves one connection and exits when that ends. The role is that of yamux, not of TCP.
//
// Says "closed ID" when a stream of the far side is over. The far side opens streams and writes one line that says what to do:
//   echo          send back whatever comes, then finish
//   sum           read to the end, answer "<bytes> <sha256>", finish
//   push N        send N bytes (byte i is i*31 & 255), finish, read nothing
//   late N        answer "ready", wait for the end of the far side, send N bytes, finish
//   reset         reset the stream
//   open N        open a stream, send N bytes on it, finish, read to the end of it; answer "<bytes> <sha256>"
//   ping          ping the far side, answer "pong"
//   goaway        end the session in order
import { createHash } from 'node:crypto'
import { createServer } from 'node:net'
import { defaultLogger } from '@libp2p/logger'
import { AbstractMultiaddrConnection } from '@libp2p/utils'
import { yamux } from '@chainsafe/libp2p-yamux'

// Node 20 lacks it and the library needs it.
Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new this((yes, no) => { resolve = yes; reject = no })
  return { promise, resolve, reject }
}

const role = process.argv[2]
const logger = defaultLogger()

class SocketConnection extends AbstractMultiaddrConnection {
  constructor (socket) {
    super({ log: logger.forComponent('peer:connection'), direction: role === 'dialer' ? 'outbound' : 'inbound', remoteAddr: undefined })
    this.socket = socket
    socket.on('data', data => this.onData(data))
    socket.on('drain', () => this.safeDispatchEvent('drain'))
    socket.on('end', () => socket.end())
    socket.on('error', () => {})
    socket.on('close', () => this.onTransportClosed())
  }

  sendData (data) {
    let canSendMore = true
    for (const part of data) {
      canSendMore = this.socket.write(part)
    }
    return { sentBytes: data.byteLength, canSendMore }
  }

  sendReset () { this.socket.resetAndDestroy() }
  async sendClose () { this.socket.end() }
  sendPause () { this.socket.pause() }
  sendResume () { this.socket.resume() }
}

function write (stream, bytes) {
  // What exceeds the window waits in the stream's own buffer, which has no limit.
  for (let at = 0; at < bytes.byteLength; at += 60000) {
    stream.send(bytes.subarray(at, at + 60000))
  }
}

function pattern (length) {
  const bytes = new Uint8Array(length)
  for (let i = 0; i < length; i++) {
    bytes[i] = (i * 31) & 255
  }
  return bytes
}

// What comes on a stream, in order: parts, then null at its end. Reading pauses while parts wait.
function reader (stream) {
  const parts = []
  let waiting = null
  let ended = false
  const push = part => {
    parts.push(part)
    waiting?.()
    waiting = null
  }
  const end = () => {
    if (!ended) {
      ended = true
      push(null)
    }
  }
  stream.addEventListener('message', event => push(Buffer.from(event.data.subarray())))
  stream.addEventListener('end', end)
  stream.addEventListener('close', end)
  return {
    async next () {
      while (parts.length === 0) {
        await new Promise(resolve => { waiting = resolve })
      }
      return parts.shift()
    },
    unread (part) { if (part.length > 0) parts.unshift(part) }
  }
}

async function sum (input) {
  const hash = createHash('sha256')
  let bytes = 0
  for (let part = await input.next(); part !== null; part = await input.next()) {
    hash.update(part)
    bytes += part.length
  }
  return `${bytes} ${hash.digest('hex')}`
}

async function line (input) {
  let text = Buffer.alloc(0)
  while (!text.includes(10)) {
    const part = await input.next()
    if (part === null) {
      return null
    }
    text = Buffer.concat([text, part])
  }
  const end = text.indexOf(10)
  input.unread(text.subarray(end + 1))
  return text.subarray(0, end).toString()
}

async function serve (muxer, stream) {
  const input = reader(stream)
  const command = await line(input)
  const [verb, argument] = (command ?? 'gone').split(' ')
  const answer = text => write(stream, Buffer.from(`${text}\n`))
  switch (verb) {
    case 'echo':
      for (let part = await input.next(); part !== null; part = await input.next()) {
        write(stream, part)
      }
      break
    case 'sum':
      answer(await sum(input))
      break
    case 'push':
      write(stream, pattern(Number(argument)))
      break
    case 'late':
      answer('ready')
      await sum(input)
      write(stream, pattern(Number(argument)))
      break
    case 'reset':
      stream.abort(new Error('asked to'))
      return
    case 'open': {
      const other = await muxer.createStream()
      const otherInput = reader(other)
      write(other, pattern(Number(argument)))
      await other.close()
      answer(await sum(otherInput))
      break
    }
    case 'ping':
      await muxer.ping()
      answer('pong')
      break
    case 'goaway':
      await muxer.close()
      return
    default:
      return
  }
  await stream.close()
}

const server = createServer({ allowHalfOpen: true }, socket => {
  server.close()
  socket.setNoDelay(true)
  const connection = new SocketConnection(socket)
  const muxer = yamux({ enableKeepAlive: false, maxInboundStreams: 5000 })().createStreamMuxer(connection)
  muxer.addEventListener('stream', event => {
    event.detail.addEventListener('close', () => console.log(`closed ${event.detail.streamId}`))
    serve(muxer, event.detail).catch(error => {
      // A stream that breaks is what some tests ask for.
      console.error(String(error))
    })
  })
})
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
