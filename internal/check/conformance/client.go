package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/keystile/keystile/policies/table"
)

// The clients write requests byte by byte, since a real client would not send
// half of what tables ask for.

const timeout = time.Minute

func send(address string, x *table.Exchange) (*table.Result, error) {
	switch x.Version {
	case 1:
		return send1(address, x)
	case 2:
		return send2(address, x)
	case 3:
		return send3(address, x)
	}
	return nil, fmt.Errorf("HTTP/%d is not spoken", x.Version)
}

func tlsConfig(x *table.Exchange, protocol string) *tls.Config {
	// Which certificate answers is not what tables are about.
	return &tls.Config{ServerName: x.SNI, InsecureSkipVerify: true, NextProtos: []string{protocol}}
}

func dial(address string, x *table.Exchange, protocol string) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", address, timeout)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(timeout))
	if !x.TLS {
		return conn, nil
	}
	secure := tls.Client(conn, tlsConfig(x, protocol))
	if err := secure.Handshake(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("handshake: %w", err)
	}
	return secure, nil
}

func send1(address string, x *table.Exchange) (*table.Result, error) {
	conn, err := dial(address, x, "http/1.1")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.Write(message1(x)); err != nil {
		return nil, err
	}
	var seen bytes.Buffer
	from := bufio.NewReader(io.TeeReader(conn, &seen))
	response, err := http.ReadResponse(from, &http.Request{Method: x.Method})
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
		return &table.Result{Refused: true}, nil
	}
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	result := &table.Result{Status: response.StatusCode}
	if result.Header, err = header1(seen.Bytes()); err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusSwitchingProtocols {
		return result, echoes(conn, from)
	}
	result.Body, err = io.ReadAll(response.Body)
	return result, err
}

// header1 has the lines of a message's header, with Connection, which net/http takes
// out of them.
func header1(message []byte) (map[string][]string, error) {
	r := textproto.NewReader(bufio.NewReader(bytes.NewReader(message)))
	if _, err := r.ReadLine(); err != nil {
		return nil, err
	}
	return r.ReadMIMEHeader()
}

// message1 is the request of HTTP/1.1.
func message1(x *table.Exchange) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", x.Method, x.Target, x.Authority)
	for _, h := range x.Headers {
		fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
	}
	switch {
	case x.Chunked:
		b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
		if x.Body != "" {
			fmt.Fprintf(&b, "%x\r\n%s\r\n", len(x.Body), x.Body)
		}
		b.WriteString("0\r\n")
		for _, t := range x.Trailers {
			fmt.Fprintf(&b, "%s: %s\r\n", t[0], t[1])
		}
	case x.HasBody() || x.Method == "POST" || x.Method == "PUT" || x.Method == "PATCH":
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(x.Body), x.Body)
		return b.Bytes()
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// echoes says why a connection that has changed protocols does not carry what both
// ends say; the upstream says all again.
func echoes(to io.Writer, from io.Reader) error {
	const said = "is anybody there"
	if _, err := io.WriteString(to, said); err != nil {
		return err
	}
	heard := make([]byte, len(said))
	if _, err := io.ReadFull(from, heard); err != nil {
		return fmt.Errorf("101, and the connection carries nothing: %w", err)
	}
	if string(heard) != said {
		return fmt.Errorf("101, and the connection carries %q", heard)
	}
	return nil
}

// fields are the header fields of a request of HTTP/2 and 3.
func fields(x *table.Exchange) [][2]string {
	out := [][2]string{{":method", x.Method}, {":scheme", "https"}, {":authority", x.Authority}, {":path", x.Target}}
	out = append(out, lower(x.Headers)...)
	if x.HasBody() && !x.Chunked {
		out = append(out, [2]string{"content-length", strconv.Itoa(len(x.Body))})
	}
	return out
}

func lower(lines [][2]string) (out [][2]string) {
	for _, l := range lines {
		out = append(out, [2]string{strings.ToLower(l[0]), l[1]})
	}
	return out
}

// collected gathers a response of HTTP/2 and 3.
type collected struct{ table.Result }

func (c *collected) field(name, value string) error {
	if name == ":status" {
		var err error
		c.Status, err = strconv.Atoi(value)
		return err
	}
	if c.Header == nil {
		c.Header = make(map[string][]string)
	}
	name = textproto.CanonicalMIMEHeaderKey(name)
	c.Header[name] = append(c.Header[name], value)
	return nil
}

func send2(address string, x *table.Exchange) (*table.Result, error) {
	conn, err := dial(address, x, "h2")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		return nil, err
	}
	framer := http2.NewFramer(conn, conn)
	if err := request2(framer, fields(x), x); err != nil {
		return nil, err
	}
	return response2(framer)
}

// request2 writes a request by HTTP/2: a header, and what follows of x.
func request2(framer *http2.Framer, header [][2]string, x *table.Exchange) error {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	headers := func(fields [][2]string, end bool) error {
		block.Reset()
		for _, f := range fields {
			if err := enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
				return err
			}
		}
		return framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: end, EndHeaders: true})
	}
	err := errors.Join(framer.WriteSettings(), headers(header, !x.HasBody()))
	if x.HasBody() {
		err = errors.Join(err, framer.WriteData(1, len(x.Trailers) == 0, []byte(x.Body)))
	}
	if len(x.Trailers) > 0 {
		err = errors.Join(err, headers(lower(x.Trailers), true))
	}
	return err
}

func response2(framer *http2.Framer) (*table.Result, error) {
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var c collected
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return &table.Result{Refused: true}, nil
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				if err := framer.WriteSettingsAck(); err != nil {
					return nil, err
				}
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return &table.Result{Refused: true}, nil
		case *http2.MetaHeadersFrame:
			for _, field := range f.Fields {
				if err := c.field(field.Name, field.Value); err != nil {
					return nil, err
				}
			}
			if f.StreamEnded() {
				return &c.Result, nil
			}
		case *http2.DataFrame:
			c.Body = append(c.Body, f.Data()...)
			if f.StreamEnded() {
				return &c.Result, nil
			}
		}
	}
}

// Types of HTTP/3 (RFC 9114) that the client needs.
const (
	h3Control  = 0x00 // stream
	h3Data     = 0x00 // frames
	h3Headers  = 0x01
	h3Settings = 0x04
)

func send3(address string, x *table.Exchange) (*table.Result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := quic.DialAddr(ctx, address, tlsConfig(x, "h3"), nil)
	if err != nil {
		return nil, err
	}
	defer conn.CloseWithError(0x100, "") // H3_NO_ERROR
	control, err := conn.OpenUniStream()
	if err != nil {
		return nil, err
	}
	if _, err := control.Write([]byte{h3Control, h3Settings, 0}); err != nil {
		return nil, err
	}
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := stream.Write(request3(x)); err != nil {
		return &table.Result{Refused: true}, nil
	}
	stream.Close()
	stream.SetReadDeadline(time.Now().Add(timeout))
	raw, err := io.ReadAll(stream)
	if err != nil {
		return &table.Result{Refused: true}, nil // reset, or the connection closed
	}
	var c collected
	r := bytes.NewReader(raw)
	for r.Len() > 0 {
		kind, err := quicvarint.Read(r)
		if err != nil {
			return nil, err
		}
		length, err := quicvarint.Read(r)
		if err != nil || length > uint64(r.Len()) {
			return nil, errors.New("HTTP/3 frame is truncated")
		}
		payload := make([]byte, length)
		r.Read(payload)
		switch kind {
		case h3Data:
			c.Body = append(c.Body, payload...)
		case h3Headers:
			if err := c.headers(payload); err != nil {
				return nil, err
			}
		}
	}
	return &c.Result, nil
}

// request3 is a request by HTTP/3.
func request3(x *table.Exchange) []byte {
	var raw []byte
	frame := func(kind uint64, payload []byte) {
		raw = quicvarint.Append(raw, kind)
		raw = quicvarint.Append(raw, uint64(len(payload)))
		raw = append(raw, payload...)
	}
	headers := func(fields [][2]string) {
		var block bytes.Buffer
		enc := qpack.NewEncoder(&block)
		for _, f := range fields {
			enc.WriteField(qpack.HeaderField{Name: f[0], Value: f[1]}) // into memory
		}
		frame(h3Headers, block.Bytes())
	}
	headers(fields(x))
	if x.Body != "" {
		frame(h3Data, []byte(x.Body))
	}
	if len(x.Trailers) > 0 {
		headers(lower(x.Trailers))
	}
	return raw
}

func (c *collected) headers(block []byte) error {
	next := qpack.NewDecoder().Decode(block)
	for {
		f, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := c.field(f.Name, f.Value); err != nil {
			return err
		}
	}
}
