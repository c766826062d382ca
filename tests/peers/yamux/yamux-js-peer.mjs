// yamux-js over TCP: `node yamux-js-peer.mjs dialer|acceptor` listens on an ephemeral loopback port, prints it and
// serves one connection. Every stream that the far side opens is echoed; as a dialer it also opens one itself, sends
// "hello" on it and prints what comes back.
//
// yamux-js 0.2.0 forgets a frame that TCP cuts, takes a FIN for nothing and looks at one flag at a time, so its tests
// keep to small messages, one at a time.
import { createServer } from 'node:net'
import { Client, Server } from 'yamux-js'

const role = process.argv[2]
const config = { enableKeepAlive: false, logger: () => {} }
const echo = stream => {
  stream.on('data', data => stream.write(data))
  stream.on('error', () => {})
}

const server = createServer(socket => {
  server.close()
  socket.setNoDelay(true)
  const session = role === 'dialer' ? new Client(config) : new Server(echo, config)
  session.onStream = echo
  session.on('error', error => console.error(String(error)))
  socket.on('error', () => {})
  session.pipe(socket)
  socket.pipe(session)
  if (role === 'dialer') {
    const stream = session.open()
    stream.on('data', data => console.log(String(data)))
    stream.on('error', () => {})
    stream.write('hello')
    session.ping()
  }
})
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
