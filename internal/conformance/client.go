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
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/keystile/keystile/internal/table"
)

// The clients write requests byte by byte, since a real client would not send
// half of what tables ask for.

const timeout = 10 * time.Second

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
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", x.Method, x.Target, x.Authority)
	for _, h := range x.Headers {
		fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
	}
	if x.Method == "POST" || x.Method == "PUT" || x.Method == "PATCH" {
		b.WriteString("Content-Length: 0\r\n")
	}
	b.WriteString("\r\n")
	if _, err := conn.Write(b.Bytes()); err != nil {
		return nil, err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: x.Method})
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &table.Result{Refused: true}, nil
	}
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return &table.Result{Status: response.StatusCode, Header: response.Header, Body: body}, err
}

// fields are the header fields of a request of HTTP/2 and 3.
func fields(x *table.Exchange) [][2]string {
	out := [][2]string{{":method", x.Method}, {":scheme", "https"}, {":authority", x.Authority}, {":path", x.Target}}
	for _, h := range x.Headers {
		out = append(out, [2]string{strings.ToLower(h[0]), h[1]})
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
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range fields(x) {
		if err := enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			return nil, err
		}
	}
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		return nil, err
	}
	framer := http2.NewFramer(conn, conn)
	if err := errors.Join(framer.WriteSettings(), framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true,
	})); err != nil {
		return nil, err
	}
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
	var block bytes.Buffer
	enc := qpack.NewEncoder(&block)
	for _, f := range fields(x) {
		if err := enc.WriteField(qpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			return nil, err
		}
	}
	frame := quicvarint.Append([]byte{h3Headers}, uint64(block.Len()))
	if _, err := stream.Write(append(frame, block.Bytes()...)); err != nil {
		return nil, err
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
